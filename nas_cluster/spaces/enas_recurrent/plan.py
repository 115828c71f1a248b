"""In which order the nodes of a cell are computed and lie in memory. No torch.

Slots are the nodes level by level from the first; those that read one node (a family) are neighbours, the childless
among them in front, equal activations together. So one product serves a family, and one elementwise operation a level.
"""

from __future__ import annotations

from dataclasses import dataclass

from nas_cluster.spaces.enas_recurrent.architecture import ACTIVATIONS, Activation, RecurrentArchitecture

__all__ = ["Family", "Plan", "Run", "plan_of"]


@dataclass(frozen=True)
class Family:
    """Slots `start` to `stop` read slot `parent`; those before `parents_from` are read by nobody."""

    parent: int
    start: int
    parents_from: int
    stop: int

    @property
    def members(self) -> slice:
        """Its slots."""
        return slice(self.start, self.stop)


@dataclass(frozen=True)
class Run:
    """Neighbouring slots with one activation."""

    activation: Activation
    start: int
    stop: int

    @property
    def members(self) -> slice:
        """Its slots."""
        return slice(self.start, self.stop)


@dataclass(frozen=True)
class Level:
    """Slots that only need the level above: its families, and the runs of activations among them."""

    start: int
    stop: int
    families: tuple[Family, ...]
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class Plan:
    """`order[slot]` is a node. averaged: slots whose mean is h_t. all_nodes: whether those that are read are in it."""

    order: tuple[int, ...]
    first: Run
    levels: tuple[Level, ...]
    averaged: tuple[int, ...]
    all_nodes: bool

    @property
    def families(self) -> list[Family]:
        """All families, parents before children."""
        return [family for level in self.levels for family in level.families]


def plan_of(architecture: RecurrentArchitecture) -> Plan:
    """The plan of a cell."""
    nodes = architecture.nodes
    children: list[list[int]] = [[] for _ in nodes]
    for number, node in enumerate(nodes):
        if node.previous is not None:
            children[node.previous].append(number)
    order, levels, above = [0], [], [0]
    while above:
        start, families, below = len(order), [], []
        for parent in above:
            family = sorted(
                children[parent], key=lambda n: (bool(children[n]), ACTIVATIONS.index(nodes[n].activation), n)
            )
            if family:
                first = len(order)
                childless = sum(not children[n] for n in family)
                order += family
                families.append(Family(order.index(parent), first, first + childless, len(order)))
                below += family
        if families:
            runs = _runs([nodes[n].activation for n in below], start)
            levels.append(Level(start, len(order), tuple(families), runs))
        above = below
    averaged = set(architecture.averaged)
    return Plan(
        tuple(order),
        Run(nodes[0].activation, 0, 1),
        tuple(levels),
        tuple(slot for slot, n in enumerate(order) if n in averaged),
        architecture.average == "all" and len(nodes) > 1,
    )


def _runs(activations: list[Activation], start: int) -> tuple[Run, ...]:
    runs: list[Run] = []
    for slot, activation in enumerate(activations, start=start):
        if runs and runs[-1].activation == activation:
            runs[-1] = Run(activation, runs[-1].start, slot + 1)
        else:
            runs.append(Run(activation, slot, slot + 1))
    return tuple(runs)
