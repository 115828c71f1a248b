"""The network of all children of this space: every edge of every cell, of which one architecture's are computed."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from nas_cluster.core.task import ImageTask
from nas_cluster.nn.shared_weights import tensors_by_name, use_batch_statistics
from nas_cluster.spaces._cells.step import INPUTS
from nas_cluster.spaces.enas_micro.architecture import MicroArchitecture, MicroChildOptions, Operation
from nas_cluster.spaces.enas_micro.child import MicroNetwork, Parts
from nas_cluster.spaces.enas_micro.plan import CellPlan, every_edge

__all__ = ["SharedMicro"]


class SharedMicro(MicroNetwork):
    """The network maps images and an architecture to logits (N, classes). An edge's weights are its own in every cell:
    two architectures share those that they both have in the same cell, node, half, state and operation."""

    def __init__(
        self,
        nodes: int,
        operations: Sequence[Operation],
        task: ImageTask,
        options: MicroChildOptions,
        *,
        halves_before: bool,
    ) -> None:
        parts = Parts(tuple(every_edge(nodes, operations)), tuple(range(nodes + INPUTS)))
        super().__init__(parts, parts, task, options, halves_before=halves_before)
        use_batch_statistics(self)

    def forward(self, images: Tensor, architecture: MicroArchitecture) -> Tensor:
        """Logits of the main classifier."""
        return self.logits(images, architecture)

    def training_logits(self, images: Tensor, architecture: MicroArchitecture) -> tuple[Tensor, Tensor | None]:
        """Logits, and the auxiliary classifier's where there is one."""
        return self.both_logits(images, architecture)

    def tensors_of(self, architecture: MicroArchitecture) -> dict[str, Tensor]:
        """The child's parameters by name, by reference."""
        plans = [CellPlan(cell, 1) for cell in (architecture.normal, architecture.reduction)]
        used = [{name for names in plan.names for name in names} for plan in plans]
        ends = [set(map(str, plan.loose)) for plan in plans]

        def is_part(name: list[str]) -> bool:
            if name[0] != "cells":
                return True
            kind = int(name[1]) in self.reduction_cells
            match name[2:]:
                case ["edges", edge, *_]:
                    return edge in used[kind]
                case ["calibrate", state, *_] | ["output", "weights", state]:
                    return state in ends[kind]
            return True

        return tensors_by_name(self, is_part)
