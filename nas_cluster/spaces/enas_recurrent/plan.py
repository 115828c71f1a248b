"""In which order the nodes of a cell are computed, and which of them together. No torch.

A family is the nodes that read one node: they need one matrix product, and a few elementwise operations for all.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from nas_cluster.spaces.enas_recurrent.architecture import ACTIVATIONS, Activation, RecurrentArchitecture

__all__ = ["Family", "Plan", "Run", "plan_of"]


@dataclass(frozen=True)
class Run:
    """Neighbouring members of a family with one activation."""

    activation: Activation
    start: int
    stop: int


@dataclass(frozen=True)
class Family:
    """The readers of one node: the first `childless` of them have no readers, the others have the families `families`
    (numbers, in this order). `nodes` are their numbers in the architecture."""

    nodes: tuple[int, ...]
    childless: int
    families: tuple[int, ...]
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class Plan:
    """The first node's activation and all families, the first node's first, then level by level.

    averaged: how many nodes h_t is the mean of: the childless; with `all_nodes` every node but the first.
    """

    first: Activation
    families: tuple[Family, ...]
    averaged: int
    all_nodes: bool

    @property
    def order(self) -> tuple[int, ...]:
        """All nodes but the first, family by family."""
        return tuple(node for family in self.families for node in family.nodes)


def plan_of(architecture: RecurrentArchitecture) -> Plan:
    """The plan of a cell."""
    nodes = architecture.nodes
    readers = [architecture.children(number) for number in range(len(nodes))]
    parents, families = [0], []
    for parent in parents:  # grows while it is read: the families' parents, level by level
        members = sorted(readers[parent], key=lambda n: (bool(readers[n]), ACTIVATIONS.index(nodes[n].activation), n))
        if not members:  # a cell of one node
            break
        own = [n for n in members if readers[n]]
        numbers = tuple(range(len(parents), len(parents) + len(own)))
        parents += own
        families.append(Family(tuple(members), len(members) - len(own), numbers, _runs(architecture, members)))
    every = architecture.average == "all" and len(nodes) > 1
    return Plan(nodes[0].activation, tuple(families), len(architecture.averaged), every)


def _runs(architecture: RecurrentArchitecture, members: list[int]) -> tuple[Run, ...]:
    runs, start = [], 0
    for activation, group in groupby(members, lambda n: architecture.nodes[n].activation):
        stop = start + len(list(group))
        runs.append(Run(activation, start, stop))
        start = stop
    return tuple(runs)
