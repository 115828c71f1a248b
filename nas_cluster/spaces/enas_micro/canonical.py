"""One representative of all cells that compute the same functions.

Exchanging the halves of a node leaves its sum as it is; renumbering the nodes permutes the loose ends, and with them
the weights of what reads the output. Nothing else is merged: two equal halves have weights of their own.
"""

from __future__ import annotations

from nas_cluster.spaces._cells.canonical import canonical_steps
from nas_cluster.spaces.enas_micro.architecture import Cell, CellNode

__all__ = ["canonical_cell"]


def canonical_cell(cell: Cell) -> Cell:
    """The cell whose nodes stand in the order of `canonical_steps`."""
    steps, _ = canonical_steps(cell.steps)
    return Cell(nodes=tuple(map(CellNode.of, steps)))
