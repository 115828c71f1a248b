"""A network of cells as a torch module: stem, cells, classifier (Zoph et al. 2018, Figure 2, and its released code)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nas_cluster.core.errors import InvalidArchitecture
from nas_cluster.core.task import ImageTask
from nas_cluster.nn.auxiliary import AuxiliaryHead
from nas_cluster.nn.convolutions import SameConv2d, initialise_convolutions
from nas_cluster.nn.drop_path import keep_probabilities
from nas_cluster.nn.feature_map import FeatureMap
from nas_cluster.nn.pooling import global_average
from nas_cluster.spaces.nasnet_cell.architecture import NASNetArchitecture, NASNetChildOptions
from nas_cluster.spaces.nasnet_cell.assembly import assemble, live_maps
from nas_cluster.spaces.nasnet_cell.cell import CellModule

__all__ = ["NASNetChild"]

_MAPS_READ = 3
"""A cell reads one of the last so many maps (the third only with `skip_reduction_layer_input`)."""


class NASNetChild(nn.Module):
    """The child maps images (N, channels, height, width) to logits (N, classes).

    Maps are numbered as in assembly.py; a cell whose map nobody reads is not built.
    progress: the trainer fills it before every step (`FollowsProgress`), and drop path follows it.
    """

    progress: Tensor

    def __init__(self, architecture: NASNetArchitecture, task: ImageTask, options: NASNetChildOptions) -> None:
        super().__init__()
        self._keep_final = options.drop_path_keep
        self.register_buffer("progress", torch.zeros(()), persistent=False)
        self.stem = _Stem(task, options)
        self._places = assemble(
            options.num_cells,
            options.filters,
            stem_cells=self.stem.cells,
            skip_reduction=options.skip_reduction_layer_input,
        )
        names = [place.name for place in self._places]
        last, auxiliary = len(names), names.index(f"normal_{2 * options.num_cells - 1}") + 1
        self._auxiliary_map = auxiliary if options.auxiliary else None
        kinds = {False: architecture.normal, True: architecture.reduction}
        reads = {kind: (cell.reads(0), cell.reads(1)) for kind, cell in kinds.items()}
        live = live_maps(self._places, reads, {last, auxiliary} if options.auxiliary else {last})

        self.cells = nn.ModuleDict()
        self._read_raw = set[int]()
        widths, sizes = [self.stem.filters], [self.stem.size]
        for number, place in enumerate(self._places, start=1):
            height, width = size = sizes[place.previous]
            cell = kinds[place.reduces]
            if number in live:
                before = None if place.before is None else (widths[place.before], sizes[place.before] != size)
                module = CellModule(
                    cell, place.filters, reduces=place.reduces, channels=widths[place.previous], before=before
                )
                self.cells[place.name] = module
                if module.reads_before_raw:
                    self._read_raw.add(place.previous if place.before is None else place.before)
            widths.append(place.filters * len(cell.outputs))
            sizes.append((-(-height // 2), -(-width // 2)) if place.reduces else size)
        self.auxiliary = (
            AuxiliaryHead(widths[auxiliary], *sizes[auxiliary], task.classes) if options.auxiliary else None
        )
        self.dropout = nn.Dropout(options.dropout)
        self.classifier = nn.Linear(widths[last], task.classes)
        initialise_convolutions(self)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of the main classifier."""
        last, _ = self._run(images)
        return self._classify(last)

    def training_logits(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits, and the auxiliary classifier's where there is one."""
        last, middle = self._run(images)
        auxiliary = self.auxiliary(middle.rectified) if self.auxiliary is not None and middle is not None else None
        return self._classify(last), auxiliary

    def _classify(self, last: FeatureMap) -> Tensor:
        logits: Tensor = self.classifier(self.dropout(global_average(last.rectified)))
        return logits

    def _run(self, images: Tensor) -> tuple[FeatureMap, FeatureMap | None]:
        """The last map, and the one that the auxiliary classifier reads. Maps are let go once no cell reads them."""
        keep = None
        if self.training and self._keep_final < 1:
            keep = keep_probabilities(self.progress, len(self._places), self._keep_final)
        maps = {0: FeatureMap(self.stem(images), spare=0 not in self._read_raw)}
        middle = None
        for number, place in enumerate(self._places, start=1):
            if place.name in self.cells:
                previous = maps.get(place.previous)
                before = previous if place.before is None else maps.get(place.before)
                y = self.cells[place.name](previous, before, None if keep is None else keep[number - 1])
                maps[number] = FeatureMap(y, spare=number not in self._read_raw)
            middle = maps[number] if number == self._auxiliary_map else middle
            maps.pop(number - _MAPS_READ, None)
        return maps[len(self._places)], middle


class _Stem(nn.Module):
    """The stem computes a 3x3 convolution, at full size, or with stride 2 (VALID) and two cells more behind it, and a
    batch norm; no ReLU."""

    def __init__(self, task: ImageTask, options: NASNetChildOptions) -> None:
        super().__init__()
        imagenet = options.stem == "imagenet"
        if imagenet and min(task.height, task.width) < 3:
            raise InvalidArchitecture(f"the imagenet stem needs images of 3x3 pixels or more, not {task}")
        self.cells = 2 if imagenet else 0
        self.filters = (32 if imagenet else options.filters) * options.stem_multiplier
        self.size = ((task.height - 1) // 2, (task.width - 1) // 2) if imagenet else (task.height, task.width)
        conv = nn.Conv2d(task.channels, self.filters, 3, stride=2, bias=False)
        self.conv = conv if imagenet else SameConv2d(task.channels, self.filters, 3)
        self.norm = nn.BatchNorm2d(self.filters)

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, channels, height, width) to (N, filters, *size)."""
        y: Tensor = self.norm(self.conv(images))
        return y
