"""Published cells of this space, and one made by hand to compare with."""

from __future__ import annotations

from nas_cluster.spaces.nasnet_cell.architecture import Block, Cell, NASNetArchitecture, Operation

__all__ = ["published"]

_Half = tuple[int, Operation]
_Cells = dict[str, tuple[list[tuple[_Half, _Half]], tuple[int, ...]]]

_NASNET_A: _Cells = {
    "normal": (
        [
            ((0, "sep_conv_5x5"), (1, "sep_conv_3x3")),
            ((1, "sep_conv_5x5"), (1, "sep_conv_3x3")),
            ((0, "avg_pool_3x3"), (1, "identity")),
            ((1, "avg_pool_3x3"), (1, "avg_pool_3x3")),
            ((0, "sep_conv_3x3"), (0, "identity")),
        ],
        (1, 2, 3, 4, 5, 6),
    ),
    "reduction": (
        [
            ((0, "sep_conv_5x5"), (1, "sep_conv_7x7")),
            ((0, "max_pool_3x3"), (1, "sep_conv_7x7")),
            ((0, "avg_pool_3x3"), (1, "sep_conv_5x5")),
            ((3, "identity"), (2, "avg_pool_3x3")),
            ((2, "sep_conv_3x3"), (0, "max_pool_3x3")),
        ],
        (3, 4, 5, 6),
    ),
}
"""Zoph et al. 2018, Figure 4: per cell its five blocks, all of them additions, each half as (state, operation), and the
states that are concatenated. State 0 is the previous cell's output, 1 that of the cell before, 2.. the blocks.

The lists of concatenated states are those of the released networks. The rule of unused states would give 2..6 and 4..6:
the release concatenates the cell before and state 3 although blocks read them.
"""

_SHORTCUTS: list[tuple[_Half, _Half]] = [((0, "conv_3x3"), (0, "identity")), ((2, "conv_3x3"), (2, "identity"))]

_RESIDUAL: _Cells = {
    "normal": (_SHORTCUTS, (3,)),
    "reduction": (_SHORTCUTS, (3,)),
}
"""Made by hand, as people would without a search: two 3x3 convolutions, each with a shortcut (He et al. 2016)."""


def published() -> dict[str, NASNetArchitecture]:
    """`nasnet_a`: the paper's Figure 4, with the released networks' concatenations. `residual`: made by hand."""
    return {"nasnet_a": _architecture(_NASNET_A), "residual": _architecture(_RESIDUAL)}


def _architecture(described: _Cells) -> NASNetArchitecture:
    cells = {
        name: Cell(
            blocks=tuple(
                Block(inputs=(first[0], second[0]), operations=(first[1], second[1])) for first, second in blocks
            ),
            concat=concat,
        )
        for name, (blocks, concat) in described.items()
    }
    return NASNetArchitecture(**cells)
