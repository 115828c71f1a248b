"""A cell as a drawing and as a line of text."""

from __future__ import annotations

from nas_cluster.core.drawing import Drawing, Edge, Node, NodeStyle
from nas_cluster.spaces.enas_micro.architecture import Cell, Operation

__all__ = ["draw_cell", "summarise_cell"]

_SHORT: dict[Operation, str] = {
    "sep_conv_3x3": "s3",
    "sep_conv_5x5": "s5",
    "avg_pool_3x3": "a3",
    "max_pool_3x3": "m3",
    "identity": "id",
}
_STYLE: dict[str, NodeStyle] = {"s": "conv", "a": "pool", "m": "pool", "i": "identity"}
_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def summarise_cell(cell: Cell) -> str:
    """`s5₀s3₁ a3₀id₁ …`: operations and their states, two per node."""
    halves = ("".join(_SHORT[o] + str(state).translate(_SUBSCRIPTS) for state, o in node.halves) for node in cell.nodes)
    return " ".join(halves)


def draw_cell(cell: Cell, title: str) -> Drawing:
    """Inputs, two operations and a sum per node, the loose ends' concatenation below."""
    nodes = [Node("0", "cell before", "input", "state 0"), Node("1", "previous cell", "input", "state 1")]
    edges = []
    for number, node in enumerate(cell.nodes):
        state = str(number + 2)
        for half, (source, operation) in enumerate(node.halves, start=1):
            box = f"{state}.{half}"
            label = operation.replace("_conv", "").replace("_pool", "").replace("_", " ")
            nodes.append(Node(box, label, _STYLE[operation[0]], f"node {number}"))
            edges += [Edge(str(source), box), Edge(box, state)]
        nodes.append(Node(state, "add", "combine", f"state {state}"))
    nodes.append(Node("output", "concat", "output", f"states {', '.join(map(str, cell.loose_ends))}"))
    edges += [Edge(str(state), "output") for state in cell.loose_ends]
    return Drawing(tuple(nodes), tuple(edges), title)
