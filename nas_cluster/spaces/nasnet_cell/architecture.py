"""A pair of cells as plain data.

States of a cell: 0 is the output of the previous cell, 1 that of the cell before it, 2 + b the output of block b.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from pydantic import Field, ValidationInfo, field_validator

from nas_cluster.core.component import Options
from nas_cluster.spaces.base import Architecture

__all__ = ["COMBINATIONS", "OPERATIONS", "Block", "Cell", "Combination", "NASNetArchitecture", "Operation", "unread"]

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


class Block(Options):
    """Two states, an operation on each, and how the results are combined."""

    inputs: tuple[int, int]
    operations: tuple[Operation, Operation]
    combination: Combination = "add"

    @property
    def halves(self) -> tuple[tuple[int, Operation], ...]:
        """(state, operation) twice."""
        return tuple(zip(self.inputs, self.operations, strict=True))


class Cell(Options):
    """Blocks in an order in which each reads only earlier states."""

    blocks: tuple[Block, ...] = Field(min_length=1)
    concat: tuple[int, ...] | None = None
    """States whose concatenation is the output, ascending; null: the blocks that no block reads (the paper's rule).
    A list that says the same as the rule is dropped."""

    @field_validator("blocks")
    @classmethod
    def _read_backwards(cls, blocks: tuple[Block, ...]) -> tuple[Block, ...]:
        for number, block in enumerate(blocks):
            for state in block.inputs:
                if not 0 <= state < number + 2:
                    raise ValueError(f"block {number} reads state {state}, it has 0..{number + 1}")
        return blocks

    @field_validator("concat")
    @classmethod
    def _every_block_counts(cls, concat: tuple[int, ...] | None, info: ValidationInfo) -> tuple[int, ...] | None:
        if concat is None or "blocks" not in info.data:
            return concat
        states = range(len(info.data["blocks"]) + 2)
        if not concat or list(concat) != sorted(set(concat) & set(states)):
            raise ValueError(f"write distinct states of 0..{states[-1]} in ascending order")
        lost = set(unread(info.data["blocks"])) - set(concat)
        if lost:
            raise ValueError(f"nothing reads state {min(lost)}")
        return None if concat == unread(info.data["blocks"]) else concat

    @property
    def outputs(self) -> tuple[int, ...]:
        """States that are concatenated."""
        return unread(self.blocks) if self.concat is None else self.concat

    def reads(self, state: int) -> bool:
        """Whether a block or the output reads this state."""
        return state in self.outputs or any(state in block.inputs for block in self.blocks)


def unread(blocks: Sequence[Block]) -> tuple[int, ...]:
    """Blocks' states that no block reads."""
    read = {state for block in blocks for state in block.inputs}
    return tuple(state for state in range(2, len(blocks) + 2) if state not in read)


class NASNetArchitecture(Architecture):
    """The cell that keeps the size of its input and the one that halves it."""

    normal: Cell
    reduction: Cell
