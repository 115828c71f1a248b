"""One optimisation step, whatever is trained: eager, or captured once as a CUDA graph."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from nas_cluster.core import reporting

__all__ = ["TrainingStep"]

_WARM_UP_STEPS = 3
"""Eager steps before a CUDA graph is captured: they let libraries choose their algorithms. They are real steps."""


class TrainingStep(ABC):
    """Loss, gradient, clipping and update of one model. The host never waits for the device.

    A subclass gives `loss`. Every call's inputs have the same shape, so that on CUDA the whole step, `loss` included,
    is captured as one graph after a few eager steps. `loss_sum` (float64, on the device) adds up the losses until it
    is zeroed; `path` says how steps run, `notes` why not as a graph.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Callable[[float | Tensor], torch.optim.Optimizer],
        device: torch.device,
        gradient_clip: float | None,
    ) -> None:
        """optimizer: makes it for a learning rate, which is a tensor on CUDA, where a graph reads it again each step.
        gradient_clip: largest global norm of a gradient."""
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._gradient_clip = gradient_clip
        self._cuda = device.type == "cuda"
        self._optimizer = optimizer(torch.zeros((), device=device) if self._cuda else 0.0)
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        self.path = "eager"
        self.notes: list[str] = []
        self._steps = 0
        self._replay: Callable[[], None] | None = None
        self._inputs: Tensor

    @abstractmethod
    def loss(self, inputs: Tensor) -> Tensor:
        """The loss of one batch, a scalar with its graph; no host synchronisation, the same operations each time."""

    def step(self, inputs: Tensor, rate: float) -> None:
        """Train on one batch, given as what `loss` takes, with this learning rate."""
        reporting.made()
        for group in self._optimizer.param_groups:
            if self._cuda:
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        if self._cuda and self._steps == _WARM_UP_STEPS:
            self._capture(inputs)
        self._steps += 1
        if self._replay is not None:
            self._inputs.copy_(inputs)
            self._replay()
        else:
            self._compute(inputs)

    def _compute(self, inputs: Tensor) -> None:
        self._optimizer.zero_grad()
        loss = self.loss(inputs)
        loss.backward()  # type: ignore[no-untyped-call]
        if self._gradient_clip is not None:
            nn.utils.clip_grad_norm_(self._parameters, self._gradient_clip)
        self._optimizer.step()
        self.loss_sum += loss.detach()

    def _capture(self, inputs: Tensor) -> None:
        """Record the whole step as one CUDA graph. A child that cannot be captured goes on eagerly, and says so."""
        self._inputs = inputs.clone()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self._compute(self._inputs)
        except RuntimeError as error:
            torch.cuda.synchronize()
            self.notes.append(f"no CUDA graph: {str(error).splitlines()[0]}")
            return
        self._replay, self.path = graph.replay, "cuda_graph"
