"""A network of cells, and the child of one architecture (Pham et al. 2018, sections 2.4, 3.2; the released code).

A network has a stem, L normal cells, reduction cells at the places L//3 and 2(L//3)+1 of L+2, and a classifier without
bias.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from nas_cluster.core.task import ImageTask
from nas_cluster.nn.auxiliary import AuxiliaryHead
from nas_cluster.nn.convolutions import ConvNorm, FactorisedReduction
from nas_cluster.nn.drop_path import keep_probabilities
from nas_cluster.nn.feature_map import FeatureMap
from nas_cluster.nn.pooling import global_average
from nas_cluster.nn.shared_weights import initialise_he
from nas_cluster.spaces.enas_micro.architecture import Cell, MicroArchitecture, MicroChildOptions
from nas_cluster.spaces.enas_micro.cell import CellModule, Place
from nas_cluster.spaces.enas_micro.plan import CellPlan, Edge

__all__ = ["MicroChild", "MicroNetwork", "Parts"]


class Parts(NamedTuple):
    """A cell is built of its edges; `loose` are the states that may be loose ends.

    >>> from nas_cluster.spaces.enas_micro.architecture import CellNode
    >>> cell = Cell(nodes=(CellNode(inputs=(0, 0), operations=("identity", "sep_conv_3x3")),))
    >>> [edge.name for edge in Parts.of(cell).edges], Parts.of(cell).loose
    (['0_0_0_identity', '0_1_0_sep_conv_3x3'], (1, 2))
    """

    edges: tuple[Edge, ...]
    loose: tuple[int, ...]

    @classmethod
    def of(cls, cell: Cell) -> Parts:
        """The parts of one cell."""
        return cls(tuple(edge for edges in CellPlan(cell, 1).edges for edge in edges), cell.loose_ends)


class MicroNetwork(nn.Module):
    """The network has all cells, with the modules of the given parts: of one architecture (child) or of all (shared).

    halves_before: a factorised reduction halves the newest map before a reduction cell, which then keeps its size.
    progress: the trainer fills it before every step (`FollowsProgress`), and drop path follows it.
    """

    progress: Tensor

    def __init__(
        self, normal: Parts, reduction: Parts, task: ImageTask, options: MicroChildOptions, *, halves_before: bool
    ) -> None:
        super().__init__()
        final = options.form == "final"
        self._keep_final = options.drop_path_keep
        self.register_buffer("progress", torch.zeros(()), persistent=False)
        third = options.layers // 3
        self.reduction_cells = (third, 2 * third + 1)
        self._halves_before = halves_before
        stem_filters, filters = options.stem_multiplier * options.filters, options.filters
        self.stem = ConvNorm(task.channels, stem_filters, 3)
        self.reductions = nn.ModuleDict()
        self.cells = nn.ModuleList()
        self.auxiliary: AuxiliaryHead | None = None
        size = task.height, task.width
        before, previous, larger = stem_filters, stem_filters, False
        for number in range(options.layers + 2):
            reduces, stride = number in self.reduction_cells, 1
            if reduces:
                filters *= 2
                if self._halves_before:
                    self.reductions[str(number)] = FactorisedReduction(previous, filters)
                    before, previous, larger = previous, filters, True
                else:
                    stride = 2
            place = Place(filters, stride, previous, before, larger, final)
            cell = CellModule(*(reduction if reduces else normal), place)
            self.cells.append(cell)
            before, previous, larger = previous, cell.channels, stride == 2
            size = (-(-size[0] // 2), -(-size[1] // 2)) if reduces else size
            if options.auxiliary and number == self._auxiliary_cell:
                self.auxiliary = AuxiliaryHead(previous, *size, task.classes, padded=True, bias=False)
        self.dropout = nn.Dropout(options.dropout)
        self.classifier = nn.Linear(previous, task.classes, bias=False)
        initialise_he(self)

    @property
    def _auxiliary_cell(self) -> int:
        return self.reduction_cells[1] + 1

    def logits(self, images: Tensor, architecture: MicroArchitecture) -> Tensor:
        """Logits (N, classes) of the main classifier."""
        last, _ = self._run(images, architecture)
        return self._classify(last)

    def both_logits(self, images: Tensor, architecture: MicroArchitecture) -> tuple[Tensor, Tensor | None]:
        """Logits, and the auxiliary classifier's where there is one."""
        last, middle = self._run(images, architecture)
        auxiliary = self.auxiliary(middle.rectified) if self.auxiliary is not None and middle is not None else None
        return self._classify(last), auxiliary

    def _classify(self, last: FeatureMap) -> Tensor:
        logits: Tensor = self.classifier(self.dropout(global_average(last.rectified)))
        return logits

    def _run(self, images: Tensor, architecture: MicroArchitecture) -> tuple[FeatureMap, FeatureMap | None]:
        """The last map, and the one that the auxiliary classifier reads."""
        keeps: list[Tensor | None] = [None] * len(self.cells)
        if self.training and self._keep_final < 1:
            keeps = list(keep_probabilities(self.progress, len(self.cells), self._keep_final).unbind())
        normal = CellPlan(architecture.normal, 1)
        reduction = CellPlan(architecture.reduction, 1 if self._halves_before else 2)
        before = previous = FeatureMap(self.stem(images))
        middle = None
        for number, (cell, keep) in enumerate(zip(self.cells, keeps, strict=True)):
            reduces = number in self.reduction_cells
            if reduces and self._halves_before:
                before, previous = previous, FeatureMap(self.reductions[str(number)](previous.rectified))
            y = cell(reduction if reduces else normal, before, previous, keep)
            before, previous = previous, FeatureMap(y)
            middle = previous if number == self._auxiliary_cell else middle
        return previous, middle


class MicroChild(MicroNetwork):
    """The child maps images (N, channels, height, width) to logits (N, classes)."""

    def __init__(
        self, architecture: MicroArchitecture, task: ImageTask, options: MicroChildOptions, *, halves_before: bool
    ) -> None:
        normal, reduction = Parts.of(architecture.normal), Parts.of(architecture.reduction)
        super().__init__(normal, reduction, task, options, halves_before=halves_before)
        self.architecture = architecture

    def forward(self, images: Tensor) -> Tensor:
        """Logits of the main classifier."""
        return self.logits(images, self.architecture)

    def training_logits(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits, and the auxiliary classifier's where there is one."""
        return self.both_logits(images, self.architecture)
