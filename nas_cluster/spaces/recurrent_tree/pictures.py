"""A tree cell as a picture. Every combination is symmetric, so left and right are chosen for the eye: the node that
c_{t-1} enters stands at the right of its row, next to the arrow, and the node that writes c_t at the left."""

from __future__ import annotations

from nas_cluster.core.drawing import Drawing, Edge, Node
from nas_cluster.spaces.recurrent_tree.architecture import TreeArchitecture, TreeNode

__all__ = ["draw_tree"]

_ACTIVATED = {"identity": "", "tanh": "tanh of ", "sigmoid": "sigmoid of ", "relu": "relu of ", "sin": "sine of "}
_COMBINED = {"add": "the sum", "elem_mult": "the elementwise product", "max": "the maximum"}


def draw_tree(architecture: TreeArchitecture) -> Drawing:
    """Leaves stand above, h(t) below; numbers are the nodes' indices."""
    nodes = [Node("inputs", "x(t), h(t-1)", "input"), Node("c_in", "c(t-1)", "memory")]
    edges = [Edge("c_in", str(architecture.cell_into))]
    written: list[Node] = []
    at_right = False
    for row in _rows(architecture):
        boxes = [_box(architecture, number) for number in row]
        nodes += [*boxes, *written] if at_right else [*written, *boxes]
        written = []
        if architecture.cell_from in row:
            at_right = row.index(architecture.cell_from) >= len(row) // 2
            activation = architecture.nodes[architecture.cell_from].activation
            label = "c(t)" if activation == "identity" else f"c(t), before {activation}"
            written = [Node("c_out", label, "memory", f"node {architecture.cell_from} before its activation")]
            edges.append(Edge(str(architecture.cell_from), "c_out"))
    for number in range(len(architecture.nodes)):
        sources = ["inputs"] if number < architecture.base else map(str, architecture.children(number))
        edges += [Edge(source, str(number)) for source in sources]
    edges.append(Edge(str(architecture.root), "h_out"))
    return Drawing((*nodes, *written, Node("h_out", "h(t)", "output")), tuple(edges))


def _rows(architecture: TreeArchitecture) -> list[list[int]]:
    """The nodes of each level from left to right; the leaves' level comes first."""
    into, written = _path(architecture, architecture.cell_into), _path(architecture, architecture.cell_from)
    rows = [[architecture.root]]
    while rows[-1][0] >= architecture.base:
        row: list[int] = []
        for number in rows[-1]:
            left, right = architecture.children(number)
            swap = left in into or (right in written and right not in into)
            row += (right, left) if swap else (left, right)
        rows.append(row)
    return rows[::-1]


def _path(architecture: TreeArchitecture, number: int) -> set[int]:
    """A node, and all through which its value reaches the root."""
    path = {number}
    while number != architecture.root:
        number = architecture.base + number // 2
        path.add(number)
    return path


def _box(architecture: TreeArchitecture, number: int) -> Node:
    node, inject = architecture.nodes[number], architecture.inject
    what = "W x(t) and U h(t-1)" if number < architecture.base else "what enters from above"
    detail = f"node {number}: {_said(node, what)}"
    if number == architecture.cell_into:
        return Node(str(number), f"{number}: {node}, c {inject}", "memory", f"{detail}; then {_said(inject, 'c(t-1)')}")
    return Node(str(number), f"{number}: {node}", "conv" if number < architecture.base else "combine", detail)


def _said(node: TreeNode, what: str) -> str:
    link = "with" if what == "c(t-1)" else "of"
    return f"{_ACTIVATED[node.activation]}{_COMBINED[node.combination]} {link} {what}"
