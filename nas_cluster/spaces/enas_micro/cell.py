"""A cell as a torch module, of one architecture or of all: it has the modules of the edges it is given.

Shapes: N images, C channels, F filters of the cell, H W height and width. Every convolution is ReLU, convolution, norm.
An edge is one operation on one state as one half of a node, and has weights of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from nas_cluster.nn.concatenate import concatenate
from nas_cluster.nn.convolutions import ConvNorm, FactorisedReduction, SeparableTwice
from nas_cluster.nn.drop_path import drop_path
from nas_cluster.nn.feature_map import FeatureMap
from nas_cluster.nn.joined import JoinedConvNorm
from nas_cluster.nn.pooling import SamePool
from nas_cluster.spaces.enas_micro.architecture import Cell, Operation

__all__ = ["CellModule", "CellPlan", "Edge", "Place", "every_edge"]

_POOLS: dict[str, Literal["avg", "max"]] = {"avg_pool_3x3": "avg", "max_pool_3x3": "max"}


@dataclass(frozen=True)
class Edge:
    """Half 0 or 1 of node `node` does `operation` on `state`."""

    node: int
    half: int
    state: int
    operation: Operation

    @property
    def name(self) -> str:
        """What its module is called."""
        return f"{self.node}_{self.half}_{self.state}_{self.operation}"


def every_edge(nodes: int, operations: Iterable[Operation]) -> Iterator[Edge]:
    """All edges of all cells of so many nodes."""
    words = tuple(operations)
    for node in range(nodes):
        for half, state, operation in product(range(2), range(node + 2), words):
            yield Edge(node, half, state, operation)


@dataclass(frozen=True)
class Place:
    """Where in the network a cell stands. stride: of operations on the cell's inputs. before_larger: the older input is
    twice as large as the newer one. final: the form of the child options."""

    filters: int
    stride: int
    previous_channels: int
    before_channels: int
    before_larger: bool
    final: bool


class CellPlan:
    """What a cell computes, worked out once per call of a network and used by all of its cells."""

    def __init__(self, cell: Cell, stride: int) -> None:
        self.edges = tuple(
            tuple(Edge(number, half, state, operation) for half, (state, operation) in enumerate(node.halves))
            for number, node in enumerate(cell.nodes)
        )
        self.names = tuple(tuple(edge.name for edge in edges) for edges in self.edges)
        self.loose = cell.loose_ends
        raw = {e.state for edges in self.edges for e in edges if not _reads_rectified(e, stride)}
        self.spare = tuple(state not in raw and state not in self.loose for state in range(len(cell.nodes) + 2))


class CellModule(nn.Module):
    """Maps of the cell before the previous one and of the previous one to the cell's output.

    loose: states that may be loose ends. `channels`: of the output for one architecture (in the final form).
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
        self._pools = {(word, s): SamePool(kind, 3, s) for word, kind in _POOLS.items() for s in (1, self._stride)}
        shrinks = self._stride > 1
        self.calibrate = nn.ModuleDict(
            {str(state): FactorisedReduction(filters, filters) for state in loose if shrinks and state < 2}
        )
        self.output = None if place.final else JoinedConvNorm(loose, filters, filters)

    def forward(self, plan: CellPlan, before: FeatureMap, previous: FeatureMap, keep: Tensor | None) -> Tensor:
        """(N, channels of the output, H', W'). keep: probability of keeping a path; None where no path is dropped."""
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


def _reads_rectified(edge: Edge, stride: int) -> bool:
    """Convolutions do, and an identity that halves its input, which is one; pools and other identities do not."""
    if edge.operation == "identity":
        return stride > 1 and edge.state < 2
    return edge.operation not in _POOLS


def _module_of(edge: Edge, filters: int, stride: int) -> nn.Module | None:
    """The module of an edge, None where it has no weights."""
    stride = stride if edge.state < 2 else 1
    if edge.operation == "identity":
        return FactorisedReduction(filters, filters) if stride > 1 else None
    if edge.operation in _POOLS:
        return None
    return SeparableTwice(filters, filters, int(edge.operation[-1]), stride)
