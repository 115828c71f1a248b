"""One representative of all cells that compute the same functions.

Two changes leave the family of functions as it is: exchanging the halves of a block (it adds them, or concatenates them
for a 1x1 convolution), and renumbering the blocks (it permutes the filters of the output, and with them the weights of
the 1x1 convolutions and of the classifier that read it). Nothing else is merged: two equal halves have weights of their
own, and every block reaches the output.
"""

from __future__ import annotations

from nas_cluster.spaces._cells.canonical import canonical_steps
from nas_cluster.spaces.nasnet_cell.architecture import Block, Cell

__all__ = ["canonical_cell"]


def canonical_cell(cell: Cell) -> Cell:
    """The cell whose blocks stand in the order of `canonical_steps`; states of an explicit list are renumbered too."""
    steps, listed = canonical_steps(cell.steps, cell.concat or ())
    return Cell(blocks=tuple(map(Block.of, steps)), concat=listed or None)
