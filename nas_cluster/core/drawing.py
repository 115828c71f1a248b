"""A picture of an architecture as plain data: what a space says of its shape, what the report draws."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Drawing", "Edge", "Node", "NodeStyle"]

NodeStyle = Literal["input", "conv", "pool", "identity", "combine", "memory", "output"]
"""The kinds of box a reader tells apart by colour."""


@dataclass(frozen=True)
class Node:
    """One box. `label` is what is written in it, `style` chooses its colour, `detail` is shown on hover."""

    id: str
    label: str
    style: NodeStyle
    detail: str = ""


@dataclass(frozen=True)
class Edge:
    """An arrow from one node to another."""

    source: str
    target: str


@dataclass(frozen=True)
class Drawing:
    """A directed acyclic graph, nodes in topological order. `title` names the part ("normal cell")."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    title: str = ""
    notes: tuple[str, ...] = field(default=())
