"""NASNet's search space: two cells of B blocks each (Zoph et al. 2018, section 3)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from nas_cluster.core.decisions import Decision, DecisionSpec, Head, Tokens
from nas_cluster.core.drawing import Drawing
from nas_cluster.core.errors import ConfigError
from nas_cluster.core.task import ImageTask
from nas_cluster.spaces._cells.pictures import draw_steps, summarise_steps
from nas_cluster.spaces._words import named_once
from nas_cluster.spaces.base import Architecture, SearchSpace
from nas_cluster.spaces.nasnet_cell.architecture import (
    CELLS,
    COMBINATIONS,
    OPERATIONS,
    Combination,
    NASNetArchitecture,
    NASNetChildOptions,
    Operation,
    unread,
)
from nas_cluster.spaces.nasnet_cell.canonical import canonical_cell
from nas_cluster.spaces.nasnet_cell.published import published

if TYPE_CHECKING:
    from torch import nn

__all__ = ["NASNetCell"]

_STATES = ("previous cell", "cell before", *(f"block {number}" for number in range(12)))


class NASNetCell(SearchSpace[NASNetArchitecture]):
    """Per block of either cell: two states, an operation on each, how the two are combined; the normal cell first."""

    architecture_type: ClassVar[type[Architecture]] = NASNetArchitecture

    blocks: int = Field(5, ge=1, le=12)
    """B: blocks of a cell."""
    operations: Annotated[tuple[Operation, ...], Field(min_length=1), AfterValidator(named_once)] = OPERATIONS
    combinations: Annotated[tuple[Combination, ...], Field(min_length=1), AfterValidator(named_once)] = COMBINATIONS
    selection: Literal["choice", "pointer"] = "choice"
    """How states are chosen: softmax over their numbers, or attention over the steps that made them."""
    child: NASNetChildOptions = NASNetChildOptions()

    def decisions(self) -> DecisionSpec:
        """Per block: state 1, state 2, operation 1, operation 2, combination (the paper's order).

        A decision between one option is left out. With pointers each cell begins with an anchor for either input, and
        every block but the last ends with one; later blocks attend to these steps.
        """
        decisions: list[Decision] = []
        for cell in CELLS:
            anchors: list[int] = []
            for number in range(-2, self.blocks):
                if number >= 0:
                    decisions += self._block_decisions(cell, number, tuple(anchors))
                if self.selection == "pointer" and number < self.blocks - 1:
                    anchors.append(len(decisions))
                    decisions.append(Decision(f"{cell}.{_STATES[number + 2].replace(' ', '_')}", "anchor", 1, "anchor"))
        return DecisionSpec(decisions)

    def _block_decisions(self, cell: str, number: int, anchors: tuple[int, ...]) -> Iterator[Decision]:
        states = number + 2
        for half in (1, 2):
            head: Head = self.selection
            group = f"{cell}_input" if head == "pointer" else f"{cell}_input_of_{states}"
            name = f"{cell}.block_{number}.input_{half}"
            yield Decision(name, head, states, group, anchors, _STATES[:states])
        for part, words in self._words():
            if len(words) > 1:
                group = f"{cell}_{part.partition('_')[0]}"
                yield Decision(f"{cell}.block_{number}.{part}", "choice", len(words), group, labels=words)

    def _words(self) -> list[tuple[str, tuple[str, ...]]]:
        """What is chosen by name in every block, in order."""
        halves = [(f"operation_{half}", self.operations) for half in (1, 2)]
        return [*halves, ("combination", self.combinations)]

    def decode(self, tokens: Sequence[int]) -> NASNetArchitecture:
        """Tokens (T) to a pair of cells, whose unread blocks are their output."""
        spec = self.decisions()
        chosen = dict(zip((d.name for d in spec), spec.check(tokens), strict=True))
        cells = {}
        for cell in CELLS:
            blocks = []
            for number in range(self.blocks):
                name = f"{cell}.block_{number}"
                first, second, combination = (words[chosen.get(f"{name}.{part}", 0)] for part, words in self._words())
                inputs = chosen[f"{name}.input_1"], chosen[f"{name}.input_2"]
                blocks.append({"inputs": inputs, "operations": (first, second), "combination": combination})
            cells[cell] = {"blocks": blocks}
        return NASNetArchitecture.model_validate(cells)

    def encode(self, architecture: NASNetArchitecture) -> Tokens:
        """Inverse of `decode`. Raises ValueError: the cell, and what of it this space does not have."""
        chosen: dict[str, int] = {}
        for name, cell in architecture.cells:
            if cell.concat is not None:
                rule = list(unread(cell.blocks))
                raise ValueError(
                    f"{name} cell: concatenates the states {list(cell.concat)}; cells of this space concatenate those "
                    f"that no block reads, here {rule}"
                )
            if len(cell.blocks) != self.blocks:
                raise ValueError(f"{name} cell: {len(cell.blocks)} blocks, the space has {self.blocks}")
            for number, block in enumerate(cell.blocks):
                values = (*block.operations, block.combination)
                for (part, words), value in zip(self._words(), values, strict=True):
                    if value not in words:
                        raise ValueError(f"{name} cell, block {number}: {value} is not among {list(words)}")
                    chosen[f"{name}.block_{number}.{part}"] = words.index(value)
                for half, state in enumerate(block.inputs, start=1):
                    chosen[f"{name}.block_{number}.input_{half}"] = state
        return tuple(chosen.get(d.name, 0) for d in self.decisions())

    def canonical(self, architecture: NASNetArchitecture) -> NASNetArchitecture:
        """Halves and blocks of both cells in a fixed order (canonical.py)."""
        return NASNetArchitecture(
            normal=canonical_cell(architecture.normal), reduction=canonical_cell(architecture.reduction)
        )

    def check(self, task: ImageTask) -> None:
        """Raise ConfigError when the stem is too large for the images."""
        if self.child.stem == "imagenet" and min(task.height, task.width) < 3:
            raise ConfigError(f"space.child.stem: imagenet needs images of 3x3 pixels or more, not {task}")

    def build_child(self, architecture: NASNetArchitecture, task: ImageTask) -> nn.Module:
        """The child network (child.py)."""
        from nas_cluster.spaces.nasnet_cell.child import NASNetChild

        return NASNetChild(architecture, task, self.child)

    def summary(self, architecture: NASNetArchitecture) -> str:
        """`s5₀s3₁ a3₀|id₁ ... / ...`: both cells, an operation and its state twice per block."""
        return " / ".join(summarise_steps(cell.steps) for _, cell in architecture.cells)

    def draw(self, architecture: NASNetArchitecture) -> list[Drawing]:
        """The normal cell and the reduction cell."""
        return [
            draw_steps(cell.steps, cell.outputs, inputs=_STATES[:2], word="block", title=f"{name} cell")
            for name, cell in architecture.cells
        ]

    @classmethod
    def named(cls) -> Mapping[str, NASNetArchitecture]:
        """`nasnet_a`: the paper's Figure 4, with the released networks' concatenations. `residual`: made by hand."""
        return published()
