"""How large a block can be: the budget of a wide residual network (the released code's bookkeeping).

A slice is one column of the hypernetwork's input: the weights of D units of N channels that are read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

__all__ = ["BlockSize"]


@dataclass(frozen=True)
class BlockSize:
    """Block `number`, from 0. inputs: channels that it is given; channels: of all its banks together, at most; reads:
    channels that all its operations together may read. unit: N; compression: D; max_units: of an operation; sizes: of
    a bank, in units, ascending, whether this block can have them or not."""

    number: int
    inputs: int
    channels: int
    reads: int
    unit: int
    compression: int
    max_units: int
    sizes: tuple[int, ...]

    @cached_property
    def bank_sizes(self) -> tuple[int, ...]:
        """The sizes whose banks hold enough of the input for an operation that the budget can pay."""
        return tuple(size for size in self.sizes if self._allows(size))

    @cached_property
    def most_banks(self) -> int:
        """How many banks there are if they are as small as this block can have them."""
        return self.banks(self.bank_sizes[0])

    @property
    def slices(self) -> int:
        """The budget of the whole block."""
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

    def _allows(self, size: int) -> bool:
        step = self.read_step(size)
        return self.live(size) >= step and step * size // self.compression <= self.slices
