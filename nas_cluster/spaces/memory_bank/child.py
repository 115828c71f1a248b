"""A child built alone, with weights of its own: SMASH's "resulting network" (Brock et al. 2018, section 3)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from nas_cluster.core.task import ImageTask
from nas_cluster.nn.convolutions import SameConv2d
from nas_cluster.spaces.memory_bank.architecture import BankArchitecture, BankChildOptions
from nas_cluster.spaces.memory_bank.geometry import Geometry
from nas_cluster.spaces.memory_bank.network import Parts, run_network, run_op
from nas_cluster.spaces.memory_bank.plan import NetworkPlan, OpPlan

__all__ = ["BankChild", "initialise"]


class BankChild(nn.Module):
    """It maps images (N, channels, height, width) to logits (N, classes)."""

    def __init__(
        self, geometry: Geometry, architecture: BankArchitecture, task: ImageTask, options: BankChildOptions
    ) -> None:
        super().__init__()
        self._plan = plan = NetworkPlan(geometry, architecture)
        blocks, norm = plan.blocks, options.norm
        self.stem = SameConv2d(task.channels, blocks[0].inputs, options.stem_kernel)
        self.blocks = nn.ModuleList(nn.ModuleList(_Op(op, norm) for op in block.ops) for block in blocks)
        self.transitions = nn.ModuleList(
            _Transition(before.outputs, after.inputs) for before, after in pairwise(blocks)
        )
        self.norm = nn.BatchNorm2d(blocks[-1].outputs)
        self.classifier = nn.Linear(blocks[-1].outputs, task.classes)
        initialise(self)
        transitions = [(part.norm, part.convolution) for part in self.transitions]
        self._parts = Parts(self.stem, list(self.blocks), transitions, self.norm, self.classifier)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        """The logits of the images."""
        return run_network(self._plan, self._parts, images)


class _Op(nn.Module):
    """An operation has the batch norms that `BankChildOptions.norm` asks for."""

    def __init__(self, plan: OpPlan, norm: str) -> None:
        super().__init__()
        self._plan = plan
        self.reduce = nn.Parameter(torch.empty(plan.middle, plan.inputs, 1, 1))
        self.weights = nn.ParameterDict(
            {str(place): torch.empty(part.shape) for place, part in enumerate(plan.convolutions) if part is not None}
        )
        channels = {"reduce": plan.inputs} if norm != "none" else {}
        if norm == "sandwich":
            channels["reduced"] = plan.middle
        elif norm == "full":
            channels |= {str(place): p.inputs for place, p in enumerate(plan.convolutions) if p is not None}
        self.norms = nn.ModuleDict({name: nn.BatchNorm2d(count) for name, count in channels.items()})

    def forward(self, x: Tensor) -> Tensor:
        weights = [self.weights[str(place)] if there else None for place, there in enumerate(self._plan.op.mask)]
        return run_op(self._plan, x, self.reduce, weights, self._norm)

    def _norm(self, name: str, x: Tensor) -> Tensor:
        y: Tensor = self.norms[name](x) if name in self.norms else x
        return y


class _Transition(nn.Module):
    """Between two blocks there are a batch norm and a 1x1 convolution; run_network rectifies and averages."""

    def __init__(self, channels: int, filters: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.convolution = SameConv2d(channels, filters, 1)


def initialise(network: nn.Module) -> None:
    """Convolutions start orthogonal, the classifier without bias (the released code). The meta device is left out,
    where torch takes long to do nothing."""
    for weight in network.parameters():
        if weight.dim() == 4 and not weight.is_meta:
            nn.init.orthogonal_(weight)
    for part in network.modules():
        if isinstance(part, nn.Linear) and not part.weight.is_meta:
            nn.init.zeros_(part.bias)
