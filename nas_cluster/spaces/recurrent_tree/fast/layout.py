"""Where every value of a cell lies in memory, and the few operations of one time step. No torch.

Three buffers hold the values of all steps of a window, one slot per node and value:

    leaf    one slot per leaf: the products with x_t and h_{t-1} added (combination `add`), or the one with h_{t-1}
    input   one slot per leaf with another combination: its product with x_t
    node    everything else

Leaves are permuted so that those with equal combination and activation are neighbours; an operation then covers a run
of slots (start, start + step, ...), and one call of torch does it for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from typing import Literal

from nas_cluster.spaces.recurrent_tree.architecture import TreeArchitecture

__all__ = ["MEMORY", "Instruction", "Layout", "Run", "layout_of", "merge"]


@dataclass(frozen=True)
class Run:
    """Slots of a buffer that follow each other in even steps. `memory` is not a buffer: it stands for c_{t-1}."""

    buffer: Literal["leaf", "input", "node", "memory"]
    start: int
    count: int = 1
    step: int = 1

    @property
    def last(self) -> int:
        """The slot with which the run ends."""
        return self.start + (self.count - 1) * self.step

    def join(self, other: Run) -> Run | None:
        """The run of both, if the one slot of `other` goes on where this run ends."""
        step = other.start - self.last
        if self.buffer != other.buffer or step <= 0 or (self.count > 1 and step != self.step):
            return None
        return replace(self, count=self.count + 1, step=step)


MEMORY = Run("memory", 0)


@dataclass(frozen=True)
class Instruction:
    """A step computes `out = function(inputs)`, elementwise over runs of equal length."""

    function: str
    out: Run
    inputs: tuple[Run, ...]

    def join(self, other: Instruction) -> Instruction | None:
        """One instruction for both, if every operand allows it. Two inputs may change places: they commute."""
        out = self.out.join(other.out)
        if out is None or self.function != other.function:
            return None
        for inputs in (other.inputs, other.inputs[::-1]):
            joined = [a.join(b) for a, b in zip(self.inputs, inputs, strict=True)]
            together = tuple(run for run in joined if run is not None)
            if len(together) == len(joined):
                return Instruction(self.function, out, together)
        return None


@dataclass(frozen=True)
class Layout:
    """Where a cell's values lie. `leaves[i]` is the leaf at position i; the first `added` have combination `add`; the
    buffer `node` has so many `slots`.

    `pre`, `out`: a node's value before and after its activation (the same slot where only the second is needed).
    `inject_pre`, `inject_out`: the same of the cell inject. Figure 5's cell, whose leaf 0 adds:

        >>> layout = layout_of(TreeArchitecture.from_rows(FIGURE_5))
        >>> layout.leaves, layout.added, layout.slots
        ((0, 1), 1, 4)
        >>> [step.function for step in layout.instructions]
        ['elem_mult', 'relu', 'tanh', 'add', 'relu', 'elem_mult', 'sigmoid']
    """

    architecture: TreeArchitecture
    leaves: tuple[int, ...]
    added: int
    slots: int
    instructions: tuple[Instruction, ...]
    pre: tuple[Run, ...]
    out: tuple[Run, ...]
    inject_pre: Run
    inject_out: Run

    def value(self, node: int) -> Run:
        """The slot from which the readers of `node` take its value."""
        return self.inject_out if node == self.architecture.cell_into else self.out[node]


def layout_of(architecture: TreeArchitecture) -> Layout:
    """The layout that a cell gets."""
    nodes = architecture.nodes
    leaves = _leaf_order(architecture)
    added = sum(nodes[leaf].combination == "add" for leaf in leaves)
    free = count()
    pre: dict[int, Run] = {}
    out: dict[int, Run] = {}
    instructions: list[Instruction] = []
    inject = [MEMORY, MEMORY]

    def activate(activation: str, before: Run, *, keep: bool) -> tuple[Run, list[Instruction]]:
        """The activated value takes the place of the one before it, unless that is still needed."""
        if activation == "identity":
            return before, []
        after = Run("node", next(free)) if keep or activation == "sin" else before
        return after, [Instruction(activation, after, (before,))]

    def first_slot(n: int) -> int:
        return min(out[child].start for child in architecture.children(n))

    for level in architecture.levels:
        order = leaves if level.start == 0 else _inner_order(architecture, level, first_slot)
        combined, activated = [], []
        for position, n in enumerate(order):
            if level.start == 0 and position < added:
                pre[n] = Run("leaf", position)
                continue
            pre[n] = Run("node", next(free))
            if level.start == 0:
                inputs: tuple[Run, ...] = (Run("leaf", position), Run("input", position - added))
            else:
                inputs = tuple(
                    inject[1] if child == architecture.cell_into else out[child] for child in architecture.children(n)
                )
            combined.append(Instruction(nodes[n].combination, pre[n], inputs))
        for n in order:
            out[n], added_instructions = activate(nodes[n].activation, pre[n], keep=n == architecture.cell_from)
            activated += added_instructions
        instructions += [*merge(combined), *merge(activated)]
        if architecture.cell_into in level:
            before = Run("node", next(free))
            after, last = activate(architecture.inject.activation, before, keep=False)
            inject = [before, after]
            read = (out[architecture.cell_into], MEMORY)
            instructions += [Instruction(architecture.inject.combination, before, read), *last]
    every = range(len(nodes))
    return Layout(
        architecture=architecture,
        leaves=leaves,
        added=added,
        slots=next(free),
        instructions=tuple(instructions),
        pre=tuple(pre[n] for n in every),
        out=tuple(out[n] for n in every),
        inject_pre=inject[0],
        inject_out=inject[1],
    )


def _leaf_order(architecture: TreeArchitecture) -> tuple[int, ...]:
    """Leaves that add come first and equal leaves stand together; among these, those below the node that writes c_t,
    and those whose parents do the same."""
    base, written = architecture.base, architecture.cell_from

    def below_written(node: int) -> bool:
        return node == written or (node < written and below_written(base + node // 2))

    def place(leaf: int) -> tuple[object, ...]:
        node, parent = architecture.nodes[leaf], architecture.nodes[base + leaf // 2]
        kind = node.combination != "add", node.combination, leaf == written, node.activation
        return *kind, not below_written(leaf), parent.combination, leaf % 2, leaf

    return tuple(sorted(range(base), key=place))


def _inner_order(architecture: TreeArchitecture, level: range, first_slot: Callable[[int], int]) -> tuple[int, ...]:
    """Equal nodes stand together, in the order of their children's slots; activations that two combinations share stand
    at the border between them."""

    def place(number: int) -> tuple[object, ...]:
        node = architecture.nodes[number]
        others = (architecture.nodes[n] for n in level)
        shared = any(o.activation == node.activation and o.combination != node.combination for o in others)
        border_below = node.combination == "elem_mult"
        return node.combination, shared != border_below, node.activation, first_slot(number)

    return tuple(sorted(level, key=place))


def merge(instructions: Iterable[Instruction]) -> Iterator[Instruction]:
    """Independent instructions become as few as joining neighbours makes them."""
    current: Instruction | None = None
    for instruction in sorted(instructions, key=lambda i: (i.function, i.out.buffer, i.out.start)):
        joined = current.join(instruction) if current else None
        if current and joined is None:
            yield current
        current = joined or instruction
    if current:
        yield current
