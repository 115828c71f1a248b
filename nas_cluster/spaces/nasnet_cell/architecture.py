"""A pair of cells as plain data, and how a child is built from it.

States of a cell: 0 is the output of the previous cell, 1 that of the cell before it, 2 + b the output of block b.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self, get_args

from pydantic import Field, ValidationInfo, field_validator, model_validator

from nas_cluster.core.component import Options
from nas_cluster.spaces._cells.step import INPUTS, Step, check_reads
from nas_cluster.spaces.base import Architecture

__all__ = [
    "CELLS",
    "COMBINATIONS",
    "OPERATIONS",
    "Block",
    "Cell",
    "Combination",
    "NASNetArchitecture",
    "NASNetChildOptions",
    "Operation",
    "unread",
]

Operation = Literal[
    "identity",
    "conv_1x3_3x1",
    "conv_1x7_7x1",
    "dil_conv_3x3",
    "avg_pool_3x3",
    "max_pool_3x3",
    "max_pool_5x5",
    "max_pool_7x7",
    "conv_1x1",
    "conv_3x3",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "sep_conv_7x7",
]
Combination = Literal["add", "concat"]

OPERATIONS: tuple[Operation, ...] = get_args(Operation)
"""The 13 operations of Zoph et al. 2018, section 3, in the paper's order."""
COMBINATIONS: tuple[Combination, ...] = get_args(Combination)
CELLS = ("normal", "reduction")
"""The fields of `NASNetArchitecture`, in the order in which they are decided."""


class Block(Options):
    """A block does an operation on each of two states and combines the results.

    >>> block = Block(inputs=(0, 1), operations=("identity", "sep_conv_3x3"))
    >>> block.halves
    ((0, 'identity'), (1, 'sep_conv_3x3'))
    """

    inputs: tuple[int, int]
    operations: tuple[Operation, Operation]
    combination: Combination = "add"

    @property
    def halves(self) -> tuple[tuple[int, Operation], ...]:
        """(state, operation) twice."""
        return tuple(zip(self.inputs, self.operations, strict=True))

    @classmethod
    def of(cls, step: Step) -> Block:
        """The block of a step."""
        inputs, operations = zip(*step.halves, strict=True)
        return cls.model_validate({"inputs": inputs, "operations": operations, "combination": step.combination})


class Cell(Options):
    """A cell has blocks in an order in which each reads only earlier states.

    >>> reads_its_input = Block(inputs=(0, 0), operations=("conv_3x3", "identity"))
    >>> reads_the_block = Block(inputs=(2, 2), operations=("conv_3x3", "identity"))
    >>> Cell(blocks=(reads_its_input, reads_the_block)).outputs
    (3,)
    """

    blocks: tuple[Block, ...] = Field(min_length=1)
    concat: tuple[int, ...] | None = None
    """States whose concatenation is the output, ascending; null: the blocks that no block reads (the paper's rule).
    A list that says the same as the rule is dropped."""

    @field_validator("blocks")
    @classmethod
    def _read_backwards(cls, blocks: tuple[Block, ...]) -> tuple[Block, ...]:
        check_reads((block.inputs for block in blocks), "block")
        return blocks

    @field_validator("concat")
    @classmethod
    def _every_block_counts(cls, concat: tuple[int, ...] | None, info: ValidationInfo) -> tuple[int, ...] | None:
        if concat is None or "blocks" not in info.data:
            return concat
        states = range(len(info.data["blocks"]) + INPUTS)
        if not concat or list(concat) != sorted(set(concat) & set(states)):
            raise ValueError(f"write distinct states of 0..{states[-1]} in ascending order")
        lost = set(unread(info.data["blocks"])) - set(concat)
        if lost:
            raise ValueError(f"nothing reads state {min(lost)}")
        return None if concat == unread(info.data["blocks"]) else concat

    @property
    def steps(self) -> tuple[Step, ...]:
        """Its blocks as steps."""
        return tuple(Step(block.halves, block.combination) for block in self.blocks)

    @property
    def outputs(self) -> tuple[int, ...]:
        """The states whose concatenation is the output."""
        return unread(self.blocks) if self.concat is None else self.concat

    def reads(self, state: int) -> bool:
        """Whether a block or the output reads this state."""
        return state in self.outputs or any(state in block.inputs for block in self.blocks)


def unread(blocks: Sequence[Block]) -> tuple[int, ...]:
    """The blocks' states that no block reads."""
    read = {state for block in blocks for state in block.inputs}
    return tuple(state for state in range(INPUTS, len(blocks) + INPUTS) if state not in read)


class NASNetArchitecture(Architecture):
    """The normal cell keeps the size of its input, the reduction cell halves it."""

    normal: Cell
    reduction: Cell

    @property
    def cells(self) -> tuple[tuple[str, Cell], ...]:
        """Both with their names, in the order of `CELLS`."""
        return tuple(zip(CELLS, (self.normal, self.reduction), strict=True))


class NASNetChildOptions(Options):
    """How a child is built from a pair of cells."""

    num_cells: int = Field(2, ge=1)
    """N: normal cells before, between and after the two reductions, each time."""
    filters: int = Field(32, ge=2)
    """F: filters of the first normal cells; each reduction doubles them."""
    stem: Literal["cifar", "imagenet"] = "cifar"
    """cifar: a 3x3 convolution; imagenet: one with stride 2 and two reduction cells of F/4 and F/2 filters."""
    stem_multiplier: int = Field(3, ge=1)
    """Filters of the stem's convolution: so many times F (cifar) or 32 (imagenet; the mobile network has 1)."""
    skip_reduction_layer_input: bool = False
    """The normal cell after a reduction reads, as the cell before, the one that the reduction read (large networks)."""
    auxiliary: bool = False
    """A second classifier before the second reduction, in training only (the estimator's `auxiliary_weight`)."""
    drop_path_keep: float = Field(1.0, gt=0, le=1)
    """Probability of keeping a path in the last cell at the end of training: 0.6 for CIFAR, 0.7 for large networks."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of the classifier's inputs that is dropped: 0.5 for ImageNet."""

    @model_validator(mode="after")
    def _wide_enough(self) -> Self:
        if self.stem == "imagenet" and self.filters < 8:
            raise ValueError(f"filters {self.filters}: with the imagenet stem, whose cells have a quarter, at least 8")
        return self
