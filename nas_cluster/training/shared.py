"""Training of what all children share, alone or with the other workers of a group (Pham et al. 2018, section 2.2).

The parameters are views of one flat vector and their gradients of another: averaging over the group is one collective,
an update is a few operations, and tensors that no sampled architecture used have gradient zero in every worker alike.
Shapes: S steps of a phase, M architectures of a step, of which a worker trains every world-th.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from nas_cluster.core.durable import write_durably
from nas_cluster.core.errors import Diverged
from nas_cluster.core.phases import PhaseOrder, PhaseResult, SharedState
from nas_cluster.nn.protocols import HasTrainingLogits, follows_progress

__all__ = ["Bound", "SharedTraining"]

_GROUP_SECONDS = 600.0
"""So long a member waits for the others; a lost one is noticed by the run long before, and the whole group is ended."""


class SharedTraining:
    """The shared tensors in this process: `network` with its optimizer, as they are after phase `phase` (-1: fresh).

    make_optimizer: one optimizer over the flat vector, given as its only parameter; or, where some parameters are to be
    treated differently (`apart`, by their names' beginning), over the vector of the others and the vector of those.
    """

    def __init__(
        self,
        network: nn.Module,
        make_optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
        device: torch.device,
        gradient_clip: float | None,
        apart: str = "",
    ) -> None:
        self.network = network.to(device)
        self.phase = -1
        self._device = device
        self._clip = gradient_clip
        named = dict(network.named_parameters())
        parts = [list(named.values())]
        if apart:
            parts = [[p for name, p in named.items() if name.startswith(apart) is own] for own in (False, True)]
        self._flat = nn.Parameter(torch.cat([_flatten(part) for part in parts]))
        self._flat.grad = torch.zeros_like(self._flat)
        _hang([p for part in parts for p in part], self._flat)
        self._sizes = [sum(p.numel() for p in part) for part in parts]
        self._parts = _split(self._flat, self._sizes)
        self._optimizer = make_optimizer(self._parts)
        self._fresh = {name: tensor.clone() for name, tensor in self._tensors().items()}

    def hold(self, state: SharedState | None) -> None:
        """Have the tensors of `state` (None: freshly initialised ones), from its file where they are not here.

        Raises ValueError when the file is not what was recorded.
        """
        wanted = -1 if state is None else state.phase
        if wanted == self.phase:
            return
        self._set(self._fresh if state is None else _read(state))
        self.phase = wanted

    def train(
        self,
        order: PhaseOrder,
        loss: Callable[[int, int], Tensor],
        rate: Callable[[int], float],
    ) -> PhaseResult:
        """One phase. loss(step, slot): of architecture `slot` of M at that step, on data of its own. rate(step).

        The gradient of a step is the mean over its M architectures, whoever computed them. Raises Diverged.
        """
        started = time.perf_counter()
        self.hold(order.parent)
        self.network.train()
        total = torch.zeros((), dtype=torch.float64, device=self._device)
        with _group(order, self._device) as group:
            for step, architectures in enumerate(order.tokens):
                M = len(architectures)
                slots = range(order.rank, M, order.world)
                total += self.step((loss(step, slot) / M for slot in slots), rate(step), group)
            if order.world > 1:
                dist.all_reduce(total, group=group)
                for buffer in self._buffers().values():
                    dist.all_reduce(buffer, group=group)
                    buffer.div_(order.world)
        mean = float(total) / len(order.tokens)
        if not math.isfinite(mean) or not bool(torch.isfinite(self._flat.detach()).all()):
            self.phase = -2  # neither fresh nor any phase's
            raise Diverged(f"the loss of the shared tensors is {mean} in phase {order.phase}")
        self.phase = order.phase
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self._tensors().items()}
        digest = hashlib.sha256(b"".join(tensors[name].numpy().tobytes() for name in sorted(tensors))).hexdigest()
        sha256 = ""
        if order.rank == 0:
            sha256 = write_durably(Path(order.target), save(tensors, {"phase": json.dumps(order.phase)}))
        return PhaseResult(mean, digest, time.perf_counter() - started, sha256)

    def step(self, losses: Iterable[Tensor], rate: float, group: Any = None) -> Tensor:
        """One update on the gradient of the sum of `losses`, and of those of the other members of `group`; that sum."""
        total = torch.zeros((), dtype=torch.float64, device=self._device)
        assert self._flat.grad is not None
        self._flat.grad.zero_()
        for loss in losses:
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        if group is not None:
            dist.all_reduce(self._flat.grad, group=group)
        if self._clip is not None:
            norm = torch.linalg.vector_norm(self._flat.grad)
            self._flat.grad.mul_((self._clip / (norm + 1e-6)).clamp(max=1.0))
        for settings in self._optimizer.param_groups:
            settings["lr"] = rate
        self._optimizer.step()
        return total

    def _buffers(self) -> dict[str, Tensor]:
        """Those that training changes: the trainer itself fills the progress."""
        filled = self.network.progress if follows_progress(self.network) else None
        return {name: b for name, b in self.network.named_buffers() if b.is_floating_point() and b is not filled}

    def _tensors(self) -> dict[str, Tensor]:
        """Everything that the next phase depends on: parameters, the optimizer's moments, floating-point buffers."""
        states = [self._optimizer.state.get(part, {}) for part in self._parts]
        moments = {
            f"optimizer.{name}": torch.cat([state[name] for state in states]) if value.dim() else value
            for name, value in sorted(states[0].items())
            if isinstance(value, Tensor)
        }
        return {"parameters": self._flat.detach(), **moments, **{f"buffer.{n}": b for n, b in self._buffers().items()}}

    def _set(self, tensors: dict[str, Tensor]) -> None:
        with torch.no_grad():
            self._flat.copy_(tensors["parameters"].to(self._device))
            for name, buffer in self._buffers().items():
                buffer.copy_(tensors[f"buffer.{name}"].to(self._device))
        self._optimizer.state.clear()
        moments = {n.removeprefix("optimizer."): t for n, t in tensors.items() if n.startswith("optimizer.")}
        for place, part in enumerate(self._parts if moments else []):
            self._optimizer.state[part] = {
                name: (torch.split(value, self._sizes)[place] if value.dim() else value).clone().to(self._device)
                for name, value in moments.items()
            }


class Bound:
    """The shared network as one of its children: what trainers and evaluators call as they call a child. generated:
    what the network would otherwise generate anew in every call."""

    def __init__(self, network: Any, architecture: Any, *generated: Any) -> None:
        self._network = network
        self._chosen = (architecture, *generated)
        self.training_logits = None
        if isinstance(network, HasTrainingLogits):
            self.training_logits = lambda images: network.training_logits(images, *self._chosen)

    def __call__(self, *arguments: Any) -> Any:
        """The network's answer for this architecture."""
        return self._network(*arguments, *self._chosen)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)


def _flatten(parameters: Iterable[nn.Parameter]) -> Tensor:
    """All of them in one vector. Convolutions' weights lie channels last, as their inputs do."""
    return torch.cat([_rows(p.detach()).reshape(-1) for p in parameters])


def _hang(parameters: Iterable[nn.Parameter], flat: nn.Parameter) -> None:
    """Make every parameter, and its gradient, a view of `flat` and of its gradient."""
    assert flat.grad is not None
    offset = 0
    for p in parameters:
        part = slice(offset, offset + p.numel())
        shape = _rows(p.detach()).shape
        p.data = _unrows(flat.data[part].view(shape))
        p.grad = _unrows(flat.grad[part].view(shape))
        offset = part.stop


def _split(flat: nn.Parameter, sizes: list[int]) -> list[nn.Parameter]:
    """Consecutive parts as parameters that share its memory, and their gradients its gradient's."""
    assert flat.grad is not None
    if len(sizes) == 1:
        return [flat]
    parts = []
    for values, gradient in zip(torch.split(flat.detach(), sizes), torch.split(flat.grad, sizes), strict=True):
        parts.append(nn.Parameter(values))
        parts[-1].grad = gradient
    return parts


def _rows(tensor: Tensor) -> Tensor:
    return tensor.permute(0, 2, 3, 1) if tensor.dim() == 4 else tensor


def _unrows(tensor: Tensor) -> Tensor:
    return tensor.permute(0, 3, 1, 2) if tensor.dim() == 4 else tensor


def _read(state: SharedState) -> dict[str, Tensor]:
    path = Path(state.path)
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != state.sha256:
        raise ValueError(f"{path}: its SHA-256 is not the recorded one")
    with safe_open(path, framework="pt") as opened:
        return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  (no mapping)


@contextmanager
def _group(order: PhaseOrder, device: torch.device) -> Iterator[Any]:
    """Member of the group for the length of a phase: a group that lost somebody is simply made anew."""
    if order.world == 1:
        yield None
        return
    dist.init_process_group(
        "gloo",
        init_method=f"tcp://{order.rendezvous}",
        rank=order.rank,
        world_size=order.world,
        timeout=timedelta(seconds=_GROUP_SECONDS),
    )
    try:
        yield dist.new_group(backend="nccl" if _cards_of_their_own(order.world, device) else "gloo")
    finally:
        dist.destroy_process_group()


def _cards_of_their_own(world: int, device: torch.device) -> bool:
    """Whether every member has a GPU to itself: NCCL refuses two on one card, which gloo serves."""
    if device.type != "cuda":
        return False
    cards: list[str | None] = [None] * world
    dist.all_gather_object(cards, str(torch.cuda.get_device_properties(device).uuid))
    return len(set(cards)) == world
