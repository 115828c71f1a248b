"""A network as a drawing and as a line of text."""

from __future__ import annotations

from nas_cluster.core.drawing import Drawing, Edge, Node
from nas_cluster.spaces._words import label, shorthand, style
from nas_cluster.spaces.enas_macro.architecture import MacroArchitecture

__all__ = ["draw_network", "summarise"]


def summarise(architecture: MacroArchitecture) -> str:
    """`c3 s5 m3 ... · 12 connections`: operations in order, and how many maps are selected."""
    connections = sum(len(layer.reads) for layer in architecture.layers)
    return f"{' '.join(shorthand(layer.operation) for layer in architecture.layers)} · {connections} connections"


def draw_network(architecture: MacroArchitecture) -> Drawing:
    """Every layer with the maps it reads, the classifier below."""
    nodes = [Node("0", "stem", "input", "3x3 convolution")]
    edges = []
    for number, layer in enumerate(architecture.layers, start=1):
        nodes.append(Node(str(number), label(layer.operation), style(layer.operation), f"layer {number}"))
        edges += [Edge(str(source), str(number)) for source in architecture.sources(number)]
    nodes.append(Node("classifier", "classifier", "output"))
    edges += [Edge(str(source), "classifier") for source in architecture.classified]
    return Drawing(tuple(nodes), tuple(edges))
