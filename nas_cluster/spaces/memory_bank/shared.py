"""The network of all children: 1x1 weights from the hypernetwork, everything else cut out of shared tensors (Brock et
al. 2018, section 3.1). Only the first channels of a tensor are live in an architecture with fewer than the largest.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas_cluster.core.task import ImageTask
from nas_cluster.nn.convolutions import SameConv2d
from nas_cluster.spaces.memory_bank.architecture import BankArchitecture, BankChildOptions, HyperNetOptions
from nas_cluster.spaces.memory_bank.child import initialise
from nas_cluster.spaces.memory_bank.encoding import condition
from nas_cluster.spaces.memory_bank.geometry import Geometry
from nas_cluster.spaces.memory_bank.hypernet import HyperNet
from nas_cluster.spaces.memory_bank.network import Map, Parts, run_network, run_op
from nas_cluster.spaces.memory_bank.plan import ConvolutionPlan, NetworkPlan, OpPlan

__all__ = ["SharedBanks"]

_EPSILON = 1e-5


class SharedBanks(nn.Module):
    """It maps images and an architecture to logits (N, classes). All operations of a block share four convolutions."""

    def __init__(
        self, geometry: Geometry, task: ImageTask, hypernet: HyperNetOptions, options: BankChildOptions
    ) -> None:
        super().__init__()
        self._geometry = geometry
        blocks = geometry.block_sizes
        wide, kernel = geometry.max_channels, geometry.max_kernel
        self.generator = HyperNet(geometry, hypernet)
        self.stem = SameConv2d(task.channels, blocks[0].inputs, options.stem_kernel)
        self.blocks = nn.ModuleList(
            nn.ParameterDict(
                {
                    str(place): torch.empty(wide, wide if place % 2 else geometry.max_bottleneck * wide, kernel, kernel)
                    for place in sorted({place for mask in geometry.masks for place in range(4) if mask[place]})
                }
            )
            for _ in blocks
        )
        self.transitions = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm": _Norm(before.channels),
                    "convolution": SameConv2d(before.channels, after.inputs, 1),
                }
            )
            for before, after in pairwise(blocks)
        )
        self.norm = _Norm(blocks[-1].channels)
        self.classifier = nn.Linear(blocks[-1].channels, task.classes)
        initialise(self)

    def generate(self, architecture: BankArchitecture) -> Tensor:
        """The hypernetwork's output for an architecture, the W of hypernet.py."""
        plan = NetworkPlan(self._geometry, architecture)
        c_CkS = torch.from_numpy(condition(self._geometry, plan))
        w: Tensor = self.generator(c_CkS.to(self.classifier.weight))
        return w

    def forward(self, images: Tensor, architecture: BankArchitecture, generated: Tensor | None = None) -> Tensor:
        """The logits of the images, with the generated weights that are given or with new ones."""
        plan = NetworkPlan(self._geometry, architecture)
        w = self.generate(architecture) if generated is None else generated
        return run_network(plan, self._parts(plan, self._tensors(plan, w)), images)

    def tensors_of(self, architecture: BankArchitecture) -> dict[str, Tensor]:
        """The child's parameters by name: they are views of the shared ones, or generated (with new noise)."""
        return self._tensors(NetworkPlan(self._geometry, architecture), self.generate(architecture))

    def _tensors(self, plan: NetworkPlan, w: Tensor) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {"stem.weight": self.stem.weight[: plan.blocks[0].inputs]}
        for number, block in enumerate(plan.blocks):
            shared: Any = self.blocks[number]
            for place, op in enumerate(block.ops):
                name = f"blocks.{number}.{place}"
                found[f"{name}.reduce"] = self._reduce(op, w)
                for key, part in enumerate(op.convolutions):
                    if part is not None:
                        found[f"{name}.weights.{key}"] = _cut(shared[str(key)], part)
        for number, (before, after) in enumerate(pairwise(plan.blocks)):
            transition: Any = self.transitions[number]
            name = f"transitions.{number}"
            found |= _prefixed(f"{name}.norm", transition["norm"].live(before.outputs))
            found[f"{name}.convolution.weight"] = transition["convolution"].weight[: after.inputs, : before.outputs]
        last = plan.blocks[-1].outputs
        found |= _prefixed("norm", self.norm.live(last))
        found["classifier.weight"], found["classifier.bias"] = self.classifier.weight[:, :last], self.classifier.bias
        return found

    def _reduce(self, op: OpPlan, w: Tensor) -> Tensor:
        """The op's rows and first columns (n_b, n_in, 1, 1), divided by the norm of all of them together."""
        first = op.slices[0] * self._geometry.slice_channels
        part = w[first : first + op.inputs, : op.middle]
        reduce: Tensor = (part / torch.linalg.vector_norm(part)).t()[:, :, None, None]
        return reduce

    def _parts(self, plan: NetworkPlan, tensors: dict[str, Tensor]) -> Parts:
        def convolution(name: str) -> Map:
            weight = tensors[f"{name}.weight"]
            return lambda x: F.conv2d(x, weight, padding=weight.shape[2] // 2)

        def norm(name: str) -> Map:
            weight, bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
            return lambda x: F.batch_norm(x, None, None, weight, bias, True, 0.0, _EPSILON)

        def op(op: OpPlan, name: str) -> Map:
            weights = [tensors.get(f"{name}.weights.{place}") for place in range(4)]
            return lambda x: run_op(op, x, tensors[f"{name}.reduce"], weights)

        ops: Sequence[Sequence[Map]] = [
            [op(one, f"blocks.{number}.{place}") for place, one in enumerate(block.ops)]
            for number, block in enumerate(plan.blocks)
        ]
        transitions = [
            (norm(f"transitions.{number}.norm"), convolution(f"transitions.{number}.convolution"))
            for number in range(len(self.transitions))
        ]
        weight, bias = tensors["classifier.weight"], tensors["classifier.bias"]
        return Parts(convolution("stem"), ops, transitions, norm("norm"), lambda x: F.linear(x, weight, bias))


class _Norm(nn.Module):
    """It keeps scale and shift of a batch norm; mean and variance are always those of the batch, since running ones of
    one architecture are wrong for another."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def live(self, channels: int) -> dict[str, Tensor]:
        """The scale and shift of the first channels."""
        return {"weight": self.weight[:channels], "bias": self.bias[:channels]}


def _cut(weight: Tensor, part: ConvolutionPlan) -> Tensor:
    """A part has the first filters, of the first inputs, and of the kernel its middle."""
    outputs, inputs, height, width = part.shape
    top, left = (weight.shape[2] - height) // 2, (weight.shape[3] - width) // 2
    return weight[:outputs, :inputs, top : top + height, left : left + width]


def _prefixed(name: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{name}.{key}": tensor for key, tensor in tensors.items()}
