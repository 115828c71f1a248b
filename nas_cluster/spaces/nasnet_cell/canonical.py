"""One representative of all cells that compute the same functions.

Two changes leave the family of functions as it is: exchanging the halves of a block (it adds them, or concatenates them
for a 1x1 convolution), and renumbering the blocks (it permutes the filters of the output, and with them the weights of
the 1x1 convolutions and of the classifier that read it). Nothing else is merged: two equal halves have weights of their
own, and every block reaches the output.
"""

from __future__ import annotations

from typing import Any

from nas_cluster.spaces.nasnet_cell.architecture import Block, Cell

__all__ = ["canonical_cell"]

_Renamed = dict[int, int]
_Entry = tuple[tuple[tuple[int, str], ...], str]


def canonical_cell(cell: Cell) -> Cell:
    """Of all orders in which each block reads only earlier ones, the one with the lexicographically least description.

    It does not depend on the order given, so it is the same for cells that differ only in their numbering, and itself
    its own canonical form. Blocks are placed one by one; of equally good beginnings those that leave the same rest are
    followed once.
    """
    beginnings: list[tuple[_Renamed, list[_Entry]]] = [({0: 0, 1: 1}, [])]
    for number in range(2, len(cell.blocks) + 2):
        longer: dict[tuple[_Entry, Any], tuple[_Renamed, list[_Entry]]] = {}
        for renamed, placed in beginnings:
            for state, block in enumerate(cell.blocks, start=2):
                if state not in renamed and all(source in renamed for source in block.inputs):
                    entry = _describe(block, renamed)
                    following = {**renamed, state: number}
                    longer.setdefault((entry, _rest(cell, following)), (following, [*placed, entry]))
        least = min(entry for entry, _ in longer)
        beginnings = [beginning for (entry, _), beginning in longer.items() if entry == least]
    blocks = tuple(
        Block.model_validate({"inputs": states, "operations": operations, "combination": combination})
        for halves, combination in beginnings[0][1]
        for states, operations in [zip(*halves, strict=True)]
    )
    concat = None if cell.concat is None else min(_listed(cell, renamed) for renamed, _ in beginnings)
    return Cell(blocks=blocks, concat=concat)


def _describe(block: Block, renamed: _Renamed) -> _Entry:
    """The block with renamed states, its halves in ascending order."""
    return tuple(sorted((renamed[state], operation) for state, operation in block.halves)), block.combination


def _listed(cell: Cell, renamed: _Renamed) -> tuple[int, ...]:
    """The states of an explicit concat list that have their new names."""
    return tuple(sorted(renamed[state] for state in cell.concat or () if state in renamed))


def _rest(cell: Cell, renamed: _Renamed) -> Any:
    """What is still to be placed, without the old names that nothing refers to."""
    rest = {state: block for state, block in enumerate(cell.blocks, start=2) if state not in renamed}
    read = {state for block in rest.values() for state in block.inputs}
    entries = [
        (
            state if state in read else -1,
            sorted((renamed.get(source, -source), operation) for source, operation in block.halves),
            block.combination,
            cell.concat is not None and state in cell.concat,
        )
        for state, block in rest.items()
    ]
    return repr(sorted(entries)), _listed(cell, renamed)
