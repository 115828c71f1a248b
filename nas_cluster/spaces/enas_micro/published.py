"""Published cells of this space: per cell its nodes as (input, operation, input, operation).

Inputs 0 and 1 are the older and the newer cell input, 2.. the nodes; operations are numbers of `OPERATIONS`.
"""

from __future__ import annotations

from nas_cluster.spaces.enas_micro.architecture import OPERATIONS, Cell, CellNode, MicroArchitecture

__all__ = ["published"]

_PUBLISHED = {
    "normal": ((0, 2, 0, 0), (0, 4, 0, 1), (0, 4, 1, 1), (1, 0, 0, 1), (0, 2, 1, 1)),
    "reduction": ((1, 0, 1, 0), (0, 3, 0, 2), (1, 1, 3, 1), (1, 0, 0, 4), (0, 3, 1, 1)),
}
"""Pham et al. 2018, the released code's `micro_final`: 3.54 % test error on CIFAR-10, 2.89 % with cutout."""


def published() -> dict[str, MicroArchitecture]:
    """`published`: the cells of the released code's final network."""
    cells = {
        name: Cell(
            nodes=tuple(
                CellNode(inputs=(x, y), operations=(OPERATIONS[x_operation], OPERATIONS[y_operation]))
                for x, x_operation, y, y_operation in rows
            )
        )
        for name, rows in _PUBLISHED.items()
    }
    return {"published": MicroArchitecture(**cells)}
