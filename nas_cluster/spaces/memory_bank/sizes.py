"""How large a block can be: the budget of a wide residual network (the released code's bookkeeping).

A slice is one column of the hypernetwork's input: the weights of D units of N channels that are read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["BlockSize", "reference_blocks"]


@dataclass(frozen=True)
class BlockSize:
    """Block `number`, from 0. inputs: channels that it is given; channels: of all its banks together, at most; reads:
    channels that all its operations together may read. unit: N; compression: D; max_units: of an operation."""

    number: int
    inputs: int
    channels: int
    reads: int
    unit: int
    compression: int
    max_units: int

    @property
    def slices(self) -> int:
        """Budget of the whole block."""
        return self.reads // (self.unit * self.compression)

    def banks(self, size: int) -> int:
        """How many banks of `size` units there are."""
        return self.channels // (size * self.unit)

    def live(self, size: int) -> int:
        """How many of them hold the block's input; what remains of it is dropped."""
        return self.inputs // (size * self.unit)

    def read_step(self, size: int) -> int:
        """Operations read a multiple of so many banks, which is a whole number of slices."""
        return self.compression // math.gcd(size, self.compression)

    def most_units(self, size: int) -> int:
        """The largest output of an operation: a multiple of a bank for which there are banks."""
        return min(self.max_units // size, self.banks(size)) * size

    def allows(self, size: int) -> bool:
        """Whether banks of `size` units hold enough of the input for an operation that the budget can pay."""
        step = self.read_step(size)
        return self.live(size) >= step and step * size // self.compression <= self.slices


def reference_blocks(
    unit: int, max_units: int, depth: int, width: int, compression: int
) -> tuple[BlockSize, BlockSize, BlockSize]:
    """The three blocks for a reference network of `depth` layers a block and widening factor `width`."""
    base = 2 * unit
    grows = base * width
    first = grows
    second = (first + 2 * grows) // 2 // base * base
    third = (second + 2 * grows) // 2 // base * base

    def block(number: int, inputs: int, channels: int, reads: int) -> BlockSize:
        return BlockSize(number, inputs, channels, reads, unit, compression, max_units)

    return (
        block(0, first, first + 2 * grows, first + depth * grows),
        block(1, second, second + 2 * grows, second + 2 * depth * grows),
        block(2, third, 4 * grows, third + 4 * depth * grows),
    )
