"""A pair of cells as plain data.

States of a cell: 0 is the output of the cell before the previous one, 1 that of the previous cell, 2.. its nodes.
"""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field, field_validator

from nas_cluster.core.component import Options
from nas_cluster.spaces.base import Architecture

__all__ = ["CELLS", "OPERATIONS", "Cell", "CellNode", "MicroArchitecture", "Operation"]

Operation = Literal["sep_conv_3x3", "sep_conv_5x5", "avg_pool_3x3", "max_pool_3x3", "identity"]

OPERATIONS: tuple[Operation, ...] = get_args(Operation)
"""The five operations of Pham et al. 2018, section 2.4, in the order of the released code's numbers."""
CELLS = ("normal", "reduction")


class CellNode(Options):
    """Two states, an operation on each; the results are added."""

    inputs: tuple[int, int]
    operations: tuple[Operation, Operation]

    @property
    def halves(self) -> tuple[tuple[int, Operation], ...]:
        """(state, operation) twice."""
        return tuple(zip(self.inputs, self.operations, strict=True))


class Cell(Options):
    """Nodes in an order in which each reads only earlier states."""

    nodes: tuple[CellNode, ...] = Field(min_length=1)

    @field_validator("nodes")
    @classmethod
    def _read_backwards(cls, nodes: tuple[CellNode, ...]) -> tuple[CellNode, ...]:
        for number, node in enumerate(nodes):
            for state in node.inputs:
                if not 0 <= state < number + 2:
                    raise ValueError(f"node {number} reads state {state}, it has 0..{number + 1}")
        return nodes

    @property
    def loose_ends(self) -> tuple[int, ...]:
        """States that no node reads, the cell's inputs among them: what the output is made of."""
        read = {state for node in self.nodes for state in node.inputs}
        return tuple(state for state in range(len(self.nodes) + 2) if state not in read)


class MicroArchitecture(Architecture):
    """The cell that keeps the size of its input and the one that halves it."""

    normal: Cell
    reduction: Cell
