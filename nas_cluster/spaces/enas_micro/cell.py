"""A cell as a torch module, of one architecture or of all: it has the modules of the edges it is given.

Shapes: N images, C channels, F filters of the cell, H W height and width. Every convolution is ReLU, convolution, norm.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from nas_cluster.nn.concatenate import concatenate
from nas_cluster.nn.convolutions import ConvNorm, FactorisedReduction, SeparableTwice
from nas_cluster.nn.drop_path import drop_path
from nas_cluster.nn.feature_map import FeatureMap
from nas_cluster.nn.joined import JoinedConvNorm
from nas_cluster.nn.pooling import SamePool
from nas_cluster.spaces.enas_micro.plan import POOLS, CellPlan, Edge

__all__ = ["CellModule", "Place"]


@dataclass(frozen=True)
class Place:
    """A cell stands at a place of the network, and is built to fit the maps there.

    stride: operations on the cell's inputs have it. before_larger: the older input is twice as large as the newer one.
    final: the form of the child options.

    >>> second = Place(filters=8, stride=1, previous_channels=8, before_channels=24, before_larger=False, final=False)
    >>> cell = CellModule(edges=[], loose=(0, 1), place=second)
    >>> cell.adjust_previous is None, cell.adjust_before is None
    (True, False)
    """

    filters: int
    stride: int
    previous_channels: int
    before_channels: int
    before_larger: bool
    final: bool


class CellModule(nn.Module):
    """The cell reads the maps of the cell before the previous one and of the previous one, and returns its output.

    loose: the states that may be loose ends. channels: the output has so many (in the final form, of one architecture).
    """

    def __init__(self, edges: Iterable[Edge], loose: tuple[int, ...], place: Place) -> None:
        super().__init__()
        filters, self._stride = place.filters, place.stride
        self.channels = filters * len(loose) if place.final else filters
        adjust: nn.Module | None = None
        if place.before_larger:
            adjust = FactorisedReduction(place.before_channels, filters)
        elif place.before_channels != filters:
            adjust = ConvNorm(place.before_channels, filters)
        self.adjust_before = adjust
        self.adjust_previous = (
            ConvNorm(place.previous_channels, filters) if place.previous_channels != filters else None
        )
        self.base = ConvNorm(filters, filters) if place.final else None
        self.edges = nn.ModuleDict()
        for edge in edges:
            module = _module_of(edge, filters, self._stride)
            if module is not None:
                self.edges[edge.name] = module
        self._pools = {(word, s): SamePool(kind, 3, s) for word, kind in POOLS.items() for s in (1, self._stride)}
        shrinks = self._stride > 1
        self.calibrate = nn.ModuleDict(
            {str(state): FactorisedReduction(filters, filters) for state in loose if shrinks and state < 2}
        )
        self.output = None if place.final else JoinedConvNorm(loose, filters, filters)

    def forward(self, plan: CellPlan, before: FeatureMap, previous: FeatureMap, keep: Tensor | None) -> Tensor:
        """Return the output (N, channels, H', W'). keep: probability of keeping a path; None where none is dropped."""
        if self.adjust_before is not None:
            before = FeatureMap(self.adjust_before(before.rectified), spare=plan.spare[0])
        if self.adjust_previous is not None:
            spare = self.base is not None or plan.spare[1]
            previous = FeatureMap(self.adjust_previous(previous.rectified), spare=spare)
        if self.base is not None:
            previous = FeatureMap(self.base(previous.rectified), spare=plan.spare[1])
        states = [before, previous]
        for edges, names in zip(plan.edges, plan.names, strict=True):
            first, second = (
                self._result(edge, name, states[edge.state], keep) for edge, name in zip(edges, names, strict=True)
            )
            if edges[0].operation != "identity":
                total = first.add_(second)
            else:
                total = second.add_(first) if edges[1].operation != "identity" else first + second
            states.append(FeatureMap(total, spare=plan.spare[len(states)]))
        ends = [self._end(state, states[state]) for state in plan.loose]
        joined = concatenate(ends)
        if self.output is None:
            return joined
        y: Tensor = self.output(F.relu(joined, inplace=True), plan.loose)
        return y

    def _result(self, edge: Edge, name: str, state: FeatureMap, keep: Tensor | None) -> Tensor:
        stride = self._stride if edge.state < 2 else 1
        if edge.operation == "identity":
            y: Tensor = self.edges[name](state.rectified) if stride > 1 else state.raw
            return y
        pool = self._pools.get((edge.operation, stride))
        y = pool(state.raw) if pool is not None else self.edges[name](state.rectified)
        return y if keep is None else drop_path(y, keep)

    def _end(self, number: int, state: FeatureMap) -> Tensor:
        name = str(number)
        y: Tensor = self.calibrate[name](state.rectified) if name in self.calibrate else state.raw
        return y


def _module_of(edge: Edge, filters: int, stride: int) -> nn.Module | None:
    """The module of an edge, None where it has no weights."""
    stride = stride if edge.state < 2 else 1
    if edge.operation == "identity":
        return FactorisedReduction(filters, filters) if stride > 1 else None
    if edge.operation in POOLS:
        return None
    return SeparableTwice(filters, filters, int(edge.operation[-1]), stride)
