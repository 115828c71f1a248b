"""A network as a drawing and as a line of text."""

from __future__ import annotations

from nas_cluster.core.drawing import Drawing, Edge, Node
from nas_cluster.spaces.layerwise_cnn.architecture import CNNArchitecture

__all__ = ["draw_network", "summarise"]


def summarise(architecture: CNNArchitecture) -> str:
    """`3x3x36 5x5x48 ... · 6 connections`: height, width and filters of every layer, and how many maps layers read."""
    shapes = " ".join(f"{layer.filter_height}x{layer.filter_width}x{layer.filters}" for layer in architecture.layers)
    edges = sum(len(layer.inputs) for layer in architecture.layers)
    return f"{shapes} · {edges} connections"


def draw_network(architecture: CNNArchitecture) -> Drawing:
    """Layers as boxes, reads as arrows, the classifier below."""
    nodes = [Node("0", "image", "input")]
    edges = []
    for number, layer in enumerate(architecture.layers, start=1):
        stride = (layer.stride_height, layer.stride_width)
        suffix = "" if stride == (1, 1) else f" /{stride[0]}x{stride[1]}"
        label = f"{layer.filter_height}x{layer.filter_width} · {layer.filters}{suffix}"
        pooled = ", then 2x2 max pooling" if number in architecture.pools else ""
        detail = f"layer {number}: convolution, batch norm, ReLU{pooled}"
        nodes.append(Node(str(number), label + (" · pool" if pooled else ""), "conv", detail=detail))
        edges += [Edge(str(source), str(number)) for source in layer.inputs]
    nodes.append(Node("classifier", "classifier", "output", detail="global average pool, linear"))
    edges += [Edge(str(number), "classifier") for number in architecture.unread]
    return Drawing(tuple(nodes), tuple(edges))
