"""What a cell computes: edges of an architecture, or of all. No torch.

An edge is one operation on one state as one half of a node, and has weights of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Literal

from nas_cluster.spaces._cells.step import INPUTS
from nas_cluster.spaces.enas_micro.architecture import Cell, Operation

__all__ = ["POOLS", "CellPlan", "Edge", "every_edge"]

POOLS: dict[str, Literal["avg", "max"]] = {"avg_pool_3x3": "avg", "max_pool_3x3": "max"}


@dataclass(frozen=True)
class Edge:
    """Half 0 or 1 of node `node` does `operation` on `state`.

    >>> Edge(node=2, half=1, state=0, operation="identity").name
    '2_1_0_identity'
    >>> len(list(every_edge(nodes=2, operations=["identity", "sep_conv_3x3"])))
    20
    """

    node: int
    half: int
    state: int
    operation: Operation

    @property
    def name(self) -> str:
        """What its module is called."""
        return f"{self.node}_{self.half}_{self.state}_{self.operation}"


def every_edge(nodes: int, operations: Iterable[Operation]) -> Iterator[Edge]:
    """List all edges of all cells of so many nodes."""
    words = tuple(operations)
    for node in range(nodes):
        for half, state, operation in product(range(2), range(node + INPUTS), words):
            yield Edge(node, half, state, operation)


class CellPlan:
    """A plan says what a cell computes; a network works it out once per call, and all of its cells use it.

    loose: the states that are concatenated. spare: whether nothing reads a state unless rectified, per state.

    >>> from nas_cluster.spaces.enas_micro.architecture import CellNode
    >>> plan = CellPlan(Cell(nodes=(CellNode(inputs=(0, 1), operations=("identity", "sep_conv_3x3")),)), stride=1)
    >>> plan.names, plan.loose, plan.spare
    ((('0_0_0_identity', '0_1_1_sep_conv_3x3'),), (2,), (False, True, False))
    """

    def __init__(self, cell: Cell, stride: int) -> None:
        self.edges = tuple(
            tuple(Edge(number, half, state, operation) for half, (state, operation) in enumerate(node.halves))
            for number, node in enumerate(cell.nodes)
        )
        self.names = tuple(tuple(edge.name for edge in edges) for edges in self.edges)
        self.loose = cell.loose_ends
        raw = {e.state for edges in self.edges for e in edges if not _reads_rectified(e, stride)}
        self.spare = tuple(state not in raw and state not in self.loose for state in range(len(cell.nodes) + INPUTS))


def _reads_rectified(edge: Edge, stride: int) -> bool:
    """Convolutions do, and an identity that halves its input, which is one; pools and other identities do not."""
    if edge.operation == "identity":
        return stride > 1 and edge.state < INPUTS
    return edge.operation not in POOLS
