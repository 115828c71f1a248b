"""A network of layers, and the child of one architecture (Pham et al. 2018, sections 2.3, 3.2; the released code)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nas_cluster.core.task import ImageTask
from nas_cluster.nn.convolutions import ConvNorm, FactorisedReduction
from nas_cluster.nn.pooling import global_average
from nas_cluster.nn.shared_weights import initialise_he
from nas_cluster.spaces.enas_macro.architecture import (
    MacroArchitecture,
    MacroChildOptions,
    Operation,
    Wiring,
    pool_places,
)
from nas_cluster.spaces.enas_macro.layer import LayerModule, Place

__all__ = ["MacroChild", "MacroNetwork", "Parts"]


@dataclass(frozen=True)
class Parts:
    """A network is built of these: per layer its operations and the maps it may read, per halving the maps that go
    through it, and the maps that the classifier may read.

    >>> parts = Parts.of_all(layers=3, operations=["conv_3x3"], wiring="inputs")
    >>> parts.layers[1], parts.halved, parts.classified
    ((('conv_3x3',), (0, 1)), {1: (0, 1), 2: (0, 1, 2)}, (1, 2, 3))
    """

    layers: tuple[tuple[tuple[Operation, ...], tuple[int, ...]], ...]
    halved: Mapping[int, tuple[int, ...]]
    classified: tuple[int, ...]

    @classmethod
    def of(cls, architecture: MacroArchitecture) -> Parts:
        """The parts that one architecture uses. A map is halved only if a layer behind, or the classifier, reads it."""
        last = architecture.last_readers
        return cls(
            tuple(((layer.operation,), layer.reads) for layer in architecture.layers),
            {
                place: tuple(m for m in range(place + 1) if last[m] > place)
                for place in pool_places(len(architecture.layers))
            },
            architecture.classified,
        )

    @classmethod
    def of_all(cls, layers: int, operations: Sequence[Operation], wiring: Wiring) -> Parts:
        """The parts that all architectures of so many layers use together."""
        last = 0 if wiring == "inputs" else 1
        return cls(
            tuple((tuple(operations), tuple(range(number - last))) for number in range(1, layers + 1)),
            {place: tuple(range(place + 1)) for place in pool_places(layers)},
            tuple(range(1, layers + 1)) if wiring == "inputs" else (layers,),
        )


class MacroNetwork(nn.Module):
    """The network has a stem, layers, two factorised reductions of every map and a classifier without bias, with the
    modules of the given parts."""

    def __init__(self, parts: Parts, wiring: Wiring, task: ImageTask, options: MacroChildOptions) -> None:
        super().__init__()
        final, filters = options.form == "final", options.filters
        self._halved_after = tuple(parts.halved)
        self.stem = ConvNorm(task.channels, filters, 3)
        self.layers = nn.ModuleList()
        self.reductions = nn.ModuleDict()
        for number, (operations, maps) in enumerate(parts.layers, start=1):
            place = Place(number, filters, wiring, final, options.full_separable)
            self.layers.append(LayerModule(operations, maps, place))
            if number in parts.halved:
                wider = 2 * filters if final else filters
                self.reductions[str(number)] = nn.ModuleDict(
                    {str(m): FactorisedReduction(filters, wider) for m in parts.halved[number]}
                )
                filters = wider
        self.dropout = nn.Dropout(options.dropout)
        self.classifier = _JoinedLinear(parts.classified, filters, task.classes)
        initialise_he(self)

    def logits(self, images: Tensor, architecture: MacroArchitecture) -> Tensor:
        """The logits (N, classes). Only maps that are read later are halved and kept."""
        last = architecture.last_readers
        maps: dict[int, Tensor] = {0: self.stem(images)}
        for number, (module, layer) in enumerate(zip(self.layers, architecture.layers, strict=True), start=1):
            maps[number] = module(layer, maps)
            maps = {m: x for m, x in maps.items() if last[m] > number}
            if number in self._halved_after:
                halvings: nn.ModuleDict = self.reductions[str(number)]  # type: ignore[assignment]
                maps = {m: halvings[str(m)](x) for m, x in maps.items()}
        classified = architecture.classified
        features = torch.cat([global_average(maps[m]) for m in classified], 1)
        logits: Tensor = self.classifier(self.dropout(features), classified)
        return logits


class _JoinedLinear(nn.Module):
    """The layer is linear, without bias, over the features of any of the given maps; each has a matrix of its own."""

    def __init__(self, maps: Iterable[int], features: int, classes: int) -> None:
        super().__init__()
        self.weights = nn.ParameterDict({str(m): nn.Parameter(torch.empty(classes, features)) for m in maps})

    def forward(self, x: Tensor, maps: tuple[int, ...]) -> Tensor:
        """Map (N, features * len(maps)) to (N, classes)."""
        return nn.functional.linear(x, torch.cat([self.weights[str(m)] for m in maps], 1))


class MacroChild(MacroNetwork):
    """The child maps images (N, channels, height, width) to logits (N, classes)."""

    def __init__(self, architecture: MacroArchitecture, task: ImageTask, options: MacroChildOptions) -> None:
        super().__init__(Parts.of(architecture), architecture.wiring, task, options)
        self.architecture = architecture

    def forward(self, images: Tensor) -> Tensor:
        """The logits (N, classes)."""
        return self.logits(images, self.architecture)
