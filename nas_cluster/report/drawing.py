"""A `Drawing` as SVG: nodes top to bottom in layers, edges as curves, long ones around the side."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources

from nas_cluster.core.drawing import Drawing, Edge, Node

__all__ = ["layers_of", "picture_of", "svg_of", "width_of"]

_HEIGHT, _GAP_X, _GAP_Y, _CHARACTER, _PADDING = 26, 18, 22, 6.7, 12
_BEND = 15.0
"""Pixels to the side for each layer that a long edge passes."""


@dataclass(frozen=True)
class _Box:
    node: Node
    x: float
    y: float
    width: float

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def middle(self) -> float:
        return self.x + self.width / 2


def picture_of(drawings: Sequence[Drawing]) -> str:
    """A complete SVG file of all drawings side by side, each under its title."""
    style = resources.files("nas_cluster.report").joinpath("templates/drawing.css").read_text(encoding="utf-8")
    parts, x, tallest = [], float(_PADDING), 0.0
    for drawing in drawings:
        svg, width, height = _svg(drawing)
        top = 2 * _HEIGHT if drawing.title else _PADDING
        title = f'<text x="{x + width / 2:.0f}" y="{_HEIGHT}">{escape(drawing.title)}</text>' if drawing.title else ""
        parts.append(f'{title}<g transform="translate({x:.0f} {top})">{svg}</g>')
        x += width + 2 * _GAP_X
        tallest = max(tallest, top + height)
    size = f'width="{x:.0f}" height="{tallest + _PADDING:.0f}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" class="drawing" {size}><style>{style}</style>'
    return f'{head}<rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'


def svg_of(drawing: Drawing) -> str:
    """An <svg> element, styled by the classes `node-<style>` and `edge` of `templates/drawing.css`."""
    return _svg(drawing)[0]


def width_of(drawing: Drawing) -> float:
    """Its width in pixels."""
    return _svg(drawing)[1]


def _svg(drawing: Drawing) -> tuple[str, float, float]:
    """The element, its width and its height in pixels."""
    boxes = _place(drawing)
    layer_of = layers_of(drawing)
    width = max(box.right for box in boxes.values())
    paths, reach = [], width
    for index, edge in enumerate(sorted(drawing.edges, key=lambda e: layer_of[e.target] - layer_of[e.source])):
        path, furthest = _path(edge, boxes, layer_of, right=index % 2 == 0, width=width)
        paths.append(path)
        reach = max(reach, furthest)
    left = min(0.0, width - reach)
    height = max(box.y for box in boxes.values()) + _HEIGHT
    nodes = "".join(_node(box) for box in boxes.values())
    title = f"<title>{escape(drawing.title)}</title>" if drawing.title else ""
    view = f"{left - 6:.0f} -6 {reach - left + 12:.0f} {height + 12:.0f}"
    size = f'width="{reach - left + 12:.0f}" height="{height + 12:.0f}"'
    marker = (
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" markerHeight="6" orient="auto">'
        '<path d="M0 0L8 4L0 8z" class="arrow"/></marker></defs>'
    )
    svg = f'<svg class="drawing" role="img" viewBox="{view}" {size}>{title}{marker}{"".join(paths)}{nodes}</svg>'
    return svg, reach - left + 12, height + 12


def layers_of(drawing: Drawing) -> dict[str, int]:
    """Each node's layer: one below the lowest of its sources (longest path)."""
    sources = defaultdict(list)
    for edge in drawing.edges:
        sources[edge.target].append(edge.source)
    layer: dict[str, int] = {}
    for node in drawing.nodes:
        layer[node.id] = max((layer[source] + 1 for source in sources[node.id]), default=0)
    return layer


def _place(drawing: Drawing) -> dict[str, _Box]:
    """Boxes in centred rows, one row per layer."""
    rows: dict[int, list[Node]] = defaultdict(list)
    for node in drawing.nodes:
        rows[layers_of(drawing)[node.id]].append(node)
    widths = {node.id: max(48.0, len(node.label) * _CHARACTER + 2 * _PADDING) for node in drawing.nodes}
    total = {row: sum(widths[n.id] for n in nodes) + _GAP_X * (len(nodes) - 1) for row, nodes in rows.items()}
    widest = max(total.values())
    boxes = {}
    for row, nodes in sorted(rows.items()):
        x = (widest - total[row]) / 2
        for node in nodes:
            boxes[node.id] = _Box(node, x, row * (_HEIGHT + _GAP_Y), widths[node.id])
            x += widths[node.id] + _GAP_X
    return boxes


def _path(
    edge: Edge, boxes: dict[str, _Box], layer_of: dict[str, int], *, right: bool, width: float
) -> tuple[str, float]:
    """One edge, and how far to the right it reaches. An edge over more than one layer leaves by the side."""
    a, b = boxes[edge.source], boxes[edge.target]
    span = layer_of[edge.target] - layer_of[edge.source]
    if span == 1:
        y1, y2 = a.y + _HEIGHT, b.y
        bend = (y2 - y1) / 2
        start, end = f"{a.middle:.1f} {y1:.1f}", f"{b.middle:.1f} {y2:.1f}"
        d = f"M{start}C{a.middle:.1f} {y1 + bend:.1f} {b.middle:.1f} {y2 - bend:.1f} {end}"
        return f'<path class="edge" d="{d}"/>', 0.0
    y1, y2 = a.y + _HEIGHT / 2, b.y + _HEIGHT / 2
    out = _BEND * span**0.8
    if right:
        side = width + out
        d = f"M{a.right:.1f} {y1:.1f}C{side:.1f} {y1:.1f} {side:.1f} {y2:.1f} {b.right:.1f} {y2:.1f}"
    else:
        d = f"M{a.x:.1f} {y1:.1f}C{-out:.1f} {y1:.1f} {-out:.1f} {y2:.1f} {b.x:.1f} {y2:.1f}"
    return f'<path class="edge long" d="{d}"/>', width + 0.8 * out


def _node(box: _Box) -> str:
    node = box.node
    tip = f"<title>{escape(node.detail)}</title>" if node.detail else ""
    rect = f'<rect x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" height="{_HEIGHT}" rx="6"/>'
    text = f'<text x="{box.middle:.1f}" y="{box.y + _HEIGHT / 2 + 4:.1f}">{escape(node.label)}</text>'
    return f'<g class="node node-{node.style}">{tip}{rect}{text}</g>'
