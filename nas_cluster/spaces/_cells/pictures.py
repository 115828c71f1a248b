"""A cell as a drawing and as a line of text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nas_cluster.core.drawing import Drawing, Edge, Node
from nas_cluster.spaces._cells.step import INPUTS, Step
from nas_cluster.spaces._words import label, shorthand, style

__all__ = ["draw_steps", "summarise_steps"]

_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def summarise_steps(steps: Iterable[Step]) -> str:
    """Operations and their states, two per step; `|` stands between them when they are concatenated.

    >>> halves = (0, "sep_conv_5x5"), (1, "identity")
    >>> summarise_steps([Step(halves, "add"), Step(halves, "concat")])
    's5₀id₁ s5₀|id₁'
    """
    return " ".join(
        ("|" if step.combination == "concat" else "").join(
            shorthand(operation) + str(state).translate(_SUBSCRIPTS) for state, operation in step.halves
        )
        for step in steps
    )


def draw_steps(
    steps: Sequence[Step], outputs: Sequence[int], *, inputs: Sequence[str], word: str, title: str
) -> Drawing:
    """The inputs, two operations and a combination per step, the concatenation of `outputs` below; numbers are those of
    states. inputs: what states 0 and 1 are. word: what the space calls a step."""
    nodes = [Node(str(state), f"{state} · {name}", "input") for state, name in enumerate(inputs)]
    edges = []
    for number, step in enumerate(steps):
        state = str(number + INPUTS)
        for half, (source, operation) in enumerate(step.halves, start=1):
            box = f"{state}.{half}"
            nodes.append(Node(box, label(operation), style(operation), f"{word} {number}"))
            edges += [Edge(str(source), box), Edge(box, state)]
        nodes.append(Node(state, f"{state} · {step.combination}", "combine", f"{word} {number}"))
    nodes.append(Node("output", "concat", "output", f"states {', '.join(map(str, outputs))}"))
    edges += [Edge(str(state), "output") for state in outputs]
    return Drawing(tuple(nodes), tuple(edges), title)
