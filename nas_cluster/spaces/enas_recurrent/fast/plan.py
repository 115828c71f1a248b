"""In which order the nodes of a cell are computed and lie in memory. No torch.

Slots are the nodes level by level from the first, so that an elementwise operation serves a level; the nodes that read
one node (a family) are neighbours, those without readers in front, equal activations together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from nas_cluster.spaces.enas_recurrent.architecture import ACTIVATIONS, Activation, RecurrentArchitecture

__all__ = ["Family", "Level", "Plan", "Run", "plan_of"]


@dataclass(frozen=True)
class Run:
    """Slots `start` to `stop` (not included) have one activation."""

    activation: Activation
    start: int
    stop: int


@dataclass(frozen=True)
class Family:
    """Slots `start` to `stop` (not included) read the slot `parent`."""

    parent: int
    start: int
    stop: int


@dataclass(frozen=True)
class Level:
    """Slots `start` to `stop` (not included) are computed at once: their families' parents are in the level above."""

    start: int
    stop: int
    families: tuple[Family, ...]
    runs: tuple[Run, ...]

    @property
    def edges(self) -> list[tuple[int, int]]:
        """The pair (parent, slot) of every slot."""
        return [(family.parent, slot) for family in self.families for slot in range(family.start, family.stop)]


@dataclass(frozen=True)
class Plan:
    """How a cell lies in memory. order: slots to nodes. first_level: the first slot alone; its parent 0 stands for
    h_{t-1}. levels: the others. averaged: the slots whose mean is h_t, as ranges; count: how many they are.

    Node 0 is read by 1 and 3, and the loose ends 2 and 3 are averaged:

        >>> cell = RecurrentArchitecture.of("tanh", [(0, "relu"), (1, "relu"), (0, "tanh")])
        >>> plan = plan_of(cell)
        >>> plan.order, plan.parents, plan.averaged, plan.count
        ((0, 3, 1, 2), [0, 0, 2], (range(1, 2), range(3, 4)), 2)
    """

    order: tuple[int, ...]
    first_level: Level
    levels: tuple[Level, ...]
    averaged: tuple[range, ...]
    count: int

    @property
    def parents(self) -> list[int]:
        """The slot that each slot reads, the first one left out."""
        return [parent for level in self.levels for parent, _ in level.edges]


def plan_of(architecture: RecurrentArchitecture) -> Plan:
    """The plan that a cell gets: level by level from the first node."""
    nodes = architecture.nodes
    readers = [architecture.children(number) for number in range(len(nodes))]
    order, levels, start = [0], [], 0
    while start < len(order):
        stop, families = len(order), []
        for parent in range(start, stop):
            first = len(order)
            order += sorted(
                readers[order[parent]],
                key=lambda n: (bool(readers[n]), ACTIVATIONS.index(nodes[n].activation), n),
            )
            if len(order) > first:
                families.append(Family(parent, first, len(order)))
        if families:
            activations = [nodes[n].activation for n in order[stop:]]
            levels.append(Level(stop, len(order), tuple(families), _runs(activations, stop)))
        start = stop
    averaged = set(architecture.averaged)
    return Plan(
        tuple(order),
        Level(0, 1, (Family(0, 0, 1),), _runs([nodes[0].activation], 0)),
        tuple(levels),
        _ranges(slot for slot, n in enumerate(order) if n in averaged),
        len(averaged),
    )


def _runs(activations: Sequence[Activation], start: int) -> tuple[Run, ...]:
    runs = []
    for activation, group in groupby(activations):
        stop = start + len(list(group))
        runs.append(Run(activation, start, stop))
        start = stop
    return tuple(runs)


def _ranges(slots: Iterable[int]) -> tuple[range, ...]:
    """The ranges that ascending numbers make up."""
    ranges: list[range] = []
    for slot in slots:
        if ranges and ranges[-1].stop == slot:
            ranges[-1] = range(ranges[-1].start, slot + 1)
        else:
            ranges.append(range(slot, slot + 1))
    return tuple(ranges)
