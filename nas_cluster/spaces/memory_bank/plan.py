"""What a network of one architecture computes, in channels: the same for children and for the shared network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nas_cluster.spaces.memory_bank.architecture import BankArchitecture, BankOp, Convolution

if TYPE_CHECKING:
    from nas_cluster.spaces.memory_bank.space import MemoryBank

__all__ = ["BlockPlan", "ConvolutionPlan", "NetworkPlan", "OpPlan", "middle_channels"]


@dataclass(frozen=True)
class ConvolutionPlan:
    """One of the four: `convolution` from so many channels to so many."""

    convolution: Convolution
    inputs: int
    outputs: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of its weight: (outputs, inputs / groups, height, width)."""
        return self.outputs, self.inputs // self.convolution.groups, *self.convolution.kernel


@dataclass(frozen=True)
class OpPlan:
    """inputs: channels read (n_in); middle: given by the 1x1 convolution (n_b); outputs (n_out). pieces: banks that the
    output fills. slices: of the hypernetwork's output, the first and the one past the last."""

    op: BankOp
    inputs: int
    middle: int
    outputs: int
    pieces: int
    slices: tuple[int, int]
    convolutions: tuple[ConvolutionPlan | None, ...]


@dataclass(frozen=True)
class BlockPlan:
    """bank: channels of a bank. live: banks that hold the input. banks: that hold something at the end."""

    number: int
    bank: int
    live: int
    banks: int
    ops: tuple[OpPlan, ...]

    @property
    def inputs(self) -> int:
        """Channels of the block's input."""
        return self.live * self.bank

    @property
    def outputs(self) -> int:
        """Channels of all its banks together."""
        return self.banks * self.bank


class NetworkPlan:
    """All blocks; `slices`: how many of the hypernetwork's they use."""

    def __init__(self, space: MemoryBank, architecture: BankArchitecture) -> None:
        self.slices = 0
        blocks = []
        for block, described in zip(space.block_sizes, architecture.blocks, strict=True):
            ops = []
            banks = live = block.live(described.bank_size)
            for op in described.ops:
                cost = len(op.reads) * described.bank_size // space.compression
                ops.append(_plan_op(space, op, described.bank_size, self.slices, self.slices + cost))
                self.slices += cost
                banks = max(banks, op.writes[-1] + 1)
            blocks.append(BlockPlan(block.number, described.bank_size * space.unit, live, banks, tuple(ops)))
        self.blocks = tuple(blocks)


def _plan_op(space: MemoryBank, op: BankOp, bank_size: int, first: int, past: int) -> OpPlan:
    inputs, outputs = len(op.reads) * bank_size * space.unit, op.units * space.unit
    middle = middle_channels(space, inputs, outputs)
    plans = tuple(
        None if convolution is None else ConvolutionPlan(convolution, outputs if place % 2 else middle, outputs)
        for place, convolution in enumerate(op.convolutions)
    )
    return OpPlan(op, inputs, middle, outputs, op.units // bank_size, (first, past), plans)


def middle_channels(space: MemoryBank, inputs: int, outputs: int) -> int:
    """n_b: by the space's rule, no more than the generated matrix and the free convolutions have room for."""
    most = space.bottleneck * outputs
    if space.bottleneck_rule == "constant":
        middle = most
    elif space.bottleneck_rule == "capped":
        middle = min(inputs, most)
    else:
        middle = min(max(inputs // outputs, 1) * outputs, most, inputs)
    return min(middle, min(space.max_bottleneck, space.columns) * space.max_units * space.unit)
