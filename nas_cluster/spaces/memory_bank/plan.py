"""What a network of one architecture computes, in channels: the same for children and for the shared network."""

from __future__ import annotations

from dataclasses import dataclass

from nas_cluster.spaces.memory_bank.architecture import BankArchitecture, BankOp, Convolution
from nas_cluster.spaces.memory_bank.geometry import Geometry

__all__ = ["BlockPlan", "ConvolutionPlan", "NetworkPlan", "OpPlan", "middle_channels"]


@dataclass(frozen=True)
class ConvolutionPlan:
    """One of the four: `convolution` goes from so many channels to so many."""

    convolution: Convolution
    inputs: int
    outputs: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape of its weight: (outputs, inputs / groups, height, width)."""
        return self.outputs, self.inputs // self.convolution.groups, *self.convolution.kernel


@dataclass(frozen=True)
class OpPlan:
    """What an operation is in channels. inputs: those read (n_in); middle: those that the 1x1 convolution gives (n_b);
    outputs (n_out). pieces: banks that the output fills. slices: of the hypernetwork's output, the first and the one
    past the last."""

    op: BankOp
    inputs: int
    middle: int
    outputs: int
    pieces: int
    slices: tuple[int, int]
    convolutions: tuple[ConvolutionPlan | None, ...]


@dataclass(frozen=True)
class BlockPlan:
    """What a block is in channels. bank: channels of a bank. live: banks that hold the input. banks: those that hold
    something at the end."""

    number: int
    bank: int
    live: int
    banks: int
    ops: tuple[OpPlan, ...]

    @property
    def inputs(self) -> int:
        """The channels of the block's input that are used."""
        return self.live * self.bank

    @property
    def outputs(self) -> int:
        """The channels of all its banks together."""
        return self.banks * self.bank


class NetworkPlan:
    """What a network is: its `blocks`, and how many `slices` of the hypernetwork's output they use."""

    def __init__(self, geometry: Geometry, architecture: BankArchitecture) -> None:
        self.slices = 0
        blocks = []
        for block, described in zip(geometry.block_sizes, architecture.blocks, strict=True):
            ops = []
            banks = live = block.live(described.bank_size)
            for op in described.ops:
                cost = len(op.reads) * described.bank_size // geometry.compression
                ops.append(_plan_op(geometry, op, described.bank_size, self.slices, self.slices + cost))
                self.slices += cost
                banks = max(banks, op.writes[-1] + 1)
            blocks.append(BlockPlan(block.number, described.bank_size * geometry.unit, live, banks, tuple(ops)))
        self.blocks = tuple(blocks)


def _plan_op(geometry: Geometry, op: BankOp, bank_size: int, first: int, past: int) -> OpPlan:
    inputs, outputs = len(op.reads) * bank_size * geometry.unit, op.units * geometry.unit
    middle = middle_channels(geometry, inputs, outputs)
    plans = tuple(
        None if convolution is None else ConvolutionPlan(convolution, outputs if place % 2 else middle, outputs)
        for place, convolution in enumerate(op.convolutions)
    )
    return OpPlan(op, inputs, middle, outputs, op.units // bank_size, (first, past), plans)


def middle_channels(geometry: Geometry, inputs: int, outputs: int) -> int:
    """n_b follows the geometry's rule, and is no more than the generated matrix and the free convolutions have room
    for."""
    most = geometry.bottleneck * outputs
    if geometry.bottleneck_rule == "constant":
        middle = most
    elif geometry.bottleneck_rule == "capped":
        middle = min(inputs, most)
    else:
        middle = min(max(inputs // outputs, 1) * outputs, most, inputs)
    return min(middle, min(geometry.max_bottleneck, geometry.columns) * geometry.max_channels)
