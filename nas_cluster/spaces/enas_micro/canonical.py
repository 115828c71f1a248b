"""One representative of all cells that compute the same functions.

Exchanging the halves of a node leaves its sum as it is; renumbering the nodes permutes the loose ends, and with them
the weights of what reads the output. Nothing else is merged: two equal halves have weights of their own.
"""

from __future__ import annotations

from nas_cluster.spaces.enas_micro.architecture import Cell, CellNode

__all__ = ["canonical_cell"]

_Halves = tuple[tuple[int, str], ...]
_Beginning = tuple[dict[int, int], tuple[_Halves, ...]]


def canonical_cell(cell: Cell) -> Cell:
    """Of all orders of the nodes in which each reads only earlier states, the lexicographically least description.

    Nodes are placed one by one. Of the beginnings that are equally good, those that leave the same rest are followed
    once, so that many like nodes cost little.
    """
    beginnings: list[_Beginning] = [({0: 0, 1: 1}, ())]
    for state in range(2, len(cell.nodes) + 2):
        following: dict[object, _Beginning] = {}
        for names, placed in beginnings:
            for old, node in enumerate(cell.nodes, start=2):
                if old not in names and all(source in names for source in node.inputs):
                    longer = {**names, old: state}
                    halves = _halves(node, names)
                    following.setdefault((halves, _rest(cell, longer)), (longer, (*placed, halves)))
        least = min(placed for _, placed in following.values())
        beginnings = [beginning for beginning in following.values() if beginning[1] == least]
    nodes = [dict(zip(("inputs", "operations"), zip(*halves, strict=True), strict=True)) for halves in beginnings[0][1]]
    return Cell.model_validate({"nodes": nodes})


def _halves(node: CellNode, names: dict[int, int]) -> _Halves:
    """A node's halves in ascending order; states without a new name are told apart by their old one."""
    return tuple(sorted((names.get(state, -state), operation) for state, operation in node.halves))


def _rest(cell: Cell, names: dict[int, int]) -> object:
    """What is still to be placed; the old name counts only where something still refers to it."""
    rest = {state: node for state, node in enumerate(cell.nodes, start=2) if state not in names}
    referred = {source for node in rest.values() for source in node.inputs}
    return tuple(sorted((-state if state in referred else 0, _halves(node, names)) for state, node in rest.items()))
