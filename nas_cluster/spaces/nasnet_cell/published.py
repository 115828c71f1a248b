"""Published cells of this space."""

from nas_cluster.spaces.nasnet_cell.architecture import Operation

__all__ = ["NASNET_A"]

_Half = tuple[int, Operation]

NASNET_A: dict[str, tuple[list[tuple[_Half, _Half]], tuple[int, ...]]] = {
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
