"""A cell as a drawing and as a line of text."""

from __future__ import annotations

from nas_cluster.core.drawing import Drawing, Edge, Node, NodeStyle
from nas_cluster.spaces.nasnet_cell.architecture import Cell, Operation

__all__ = ["draw_cell", "summarise_cell"]

_SHORT: dict[Operation, str] = {
    "identity": "id",
    "conv_1x3_3x1": "c13",
    "conv_1x7_7x1": "c17",
    "dil_conv_3x3": "d3",
    "avg_pool_3x3": "a3",
    "max_pool_3x3": "m3",
    "max_pool_5x5": "m5",
    "max_pool_7x7": "m7",
    "conv_1x1": "c1",
    "conv_3x3": "c3",
    "sep_conv_3x3": "s3",
    "sep_conv_5x5": "s5",
    "sep_conv_7x7": "s7",
}
_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def summarise_cell(cell: Cell) -> str:
    """`s5₀s3₁ a3₀|id₁ …`: operations and their states, two per block; `|` between them when they are concatenated."""
    return " ".join(
        ("" if block.combination == "add" else "|").join(
            _SHORT[operation] + str(state).translate(_SUBSCRIPTS) for state, operation in block.halves
        )
        for block in cell.blocks
    )


def draw_cell(cell: Cell, title: str) -> Drawing:
    """Inputs, two operations and a combination per block, the concatenation below; numbers are those of states."""
    nodes = [
        Node("0", "0 · previous cell", "input"),
        Node("1", "1 · cell before", "input"),
    ]
    edges = []
    for number, block in enumerate(cell.blocks):
        state = str(number + 2)
        for half, (source, operation) in enumerate(block.halves, start=1):
            box = f"{state}.{half}"
            nodes.append(Node(box, _label(operation), _style(operation), f"block {number}"))
            edges += [Edge(str(source), box), Edge(box, state)]
        nodes.append(Node(state, f"{state} · {block.combination}", "combine", f"block {number}"))
    nodes.append(Node("output", "concat", "output", f"states {', '.join(map(str, cell.outputs))}"))
    edges += [Edge(str(state), "output") for state in cell.outputs]
    return Drawing(tuple(nodes), tuple(edges), title)


def _label(operation: Operation) -> str:
    """`sep_conv_5x5` as `sep 5x5`."""
    return operation.replace("_conv", "").replace("_pool", "").replace("_", " ")


def _style(operation: Operation) -> NodeStyle:
    if operation == "identity":
        return "identity"
    return "pool" if "pool" in operation else "conv"
