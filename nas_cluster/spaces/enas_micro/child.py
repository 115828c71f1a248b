"""A network of cells, and the child of one architecture (Pham et al. 2018, sections 2.4, 3.2; the released code).

L normal cells; reduction cells at the places L//3 and 2(L//3)+1 of L+2; a stem; a classifier without bias.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas_cluster.core.task import ImageTask
from nas_cluster.nn.convolutions import ConvNorm, FactorisedReduction, SameConv2d
from nas_cluster.nn.drop_path import keep_probabilities
from nas_cluster.nn.feature_map import FeatureMap
from nas_cluster.nn.pooling import global_average
from nas_cluster.nn.shared_weights import initialise_he
from nas_cluster.spaces.enas_micro.architecture import Cell, MicroArchitecture
from nas_cluster.spaces.enas_micro.cell import CellModule, CellPlan, Edge, Place

if TYPE_CHECKING:
    from nas_cluster.spaces.enas_micro.space import ENASMicro

__all__ = ["MicroChild", "MicroNetwork", "Parts"]

Parts = tuple[tuple[Edge, ...], tuple[int, ...]]
"""What a cell is built of: its edges, and the states that may be loose ends."""


class MicroNetwork(nn.Module):
    """All cells of a network, with the modules of the given parts: of one architecture (child) or of all (shared).

    progress: share of the training that is done, 0 to 1; the trainer sets it and drop path follows it.
    """

    progress: Tensor

    def __init__(self, normal: Parts, reduction: Parts, task: ImageTask, space: ENASMicro) -> None:
        super().__init__()
        options = space.child
        final = options.form == "final"
        self._keep_final = options.drop_path_keep
        self.register_buffer("progress", torch.zeros(()), persistent=False)
        third = options.layers // 3
        self.reduction_cells = (third, 2 * third + 1)
        self._halves_before = space.preset == "release" and not final
        stem_filters, filters = options.stem_multiplier * options.filters, options.filters
        self.stem = ConvNorm(task.channels, stem_filters, 3)
        self.reductions = nn.ModuleDict()
        self.cells = nn.ModuleList()
        self.auxiliary: _AuxiliaryHead | None = None
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
                self.auxiliary = _AuxiliaryHead(previous, size, task.classes)
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
    """Images (N, channels, height, width) to logits (N, classes)."""

    def __init__(self, architecture: MicroArchitecture, task: ImageTask, space: ENASMicro) -> None:
        super().__init__(_parts(architecture.normal), _parts(architecture.reduction), task, space)
        self.architecture = architecture

    def forward(self, images: Tensor) -> Tensor:
        """Logits of the main classifier."""
        return self.logits(images, self.architecture)

    def training_logits(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits, and the auxiliary classifier's where there is one."""
        return self.both_logits(images, self.architecture)


def _parts(cell: Cell) -> Parts:
    return tuple(edge for edges in CellPlan(cell, 1).edges for edge in edges), cell.loose_ends


class _AuxiliaryHead(nn.Module):
    """Average pool 5x5 stride 3 (VALID), 1x1 to 128, a convolution as large as the remaining map (SAME) to 768, global
    average, linear without bias. Reads a rectified map of the size it was made for; smaller ones are averaged whole."""

    def __init__(self, channels: int, size: tuple[int, int], classes: int) -> None:
        super().__init__()
        self._window = min(size[0], 5), min(size[1], 5)
        height, width = ((n - k) // 3 + 1 for n, k in zip(size, self._window, strict=True))
        self.narrow = ConvNorm(channels, 128)
        self.whole = SameConv2d(128, 768, (height, width))
        self.norm = nn.BatchNorm2d(768)
        self.classifier = nn.Linear(768, classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes)."""
        x = F.relu(self.narrow(F.avg_pool2d(x, self._window, 3)), inplace=True)
        x = F.relu(self.norm(self.whole(x)), inplace=True)
        logits: Tensor = self.classifier(global_average(x))
        return logits
