"""The numbers that tokens, sampler, encoding, hypernetwork and children share: what a space of memory banks is made of.

Sizes are in units of N channels, a slice is D units (sizes.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from nas_cluster.core.component import Options
from nas_cluster.spaces.memory_bank.architecture import Pair
from nas_cluster.spaces.memory_bank.sizes import BlockSize

__all__ = ["Geometry", "Mask"]

Mask = tuple[bool, bool, bool, bool]
_MASKS: dict[str, dict[str, float]] = {
    "single": {"1000": 1.0},
    "long": {"1100": 1.0},
    "big": {"1111": 1.0},
    "variable": {"1000": 0.05, "1010": 0.10, "1100": 0.15, "1110": 0.25, "1111": 0.45},
}
"""Which of the convolutions w0 to w3 an operation has, and how often the sampler chooses it."""


class Geometry(Options):
    """It says which architectures there are, and how large they are in channels.

    Defaults are those of the released code. A unit is `unit` channels (N); N_max is `unit * max_units`.
    """

    unit: int = Field(8, ge=1)
    max_units: int = Field(8, ge=1)
    """An operation's output has at most so many units, and so has a bank."""
    depth: int = Field(12, ge=1)
    """The wide residual network whose size is the budget has so many layers a block."""
    width: int = Field(4, ge=1)
    """It is widened by this factor."""
    compression: int = Field(2, ge=1)
    """This is D: a slice of the hypernetwork's output has so many units."""
    max_ops: int = Field(36, ge=1)
    """A block has at most so many. The release has no bound; the sequence of decisions needs one."""
    bank_sizes: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(None, min_length=1)
    """They are in units; null: 1 to max_units. A block has only those that hold enough of its input."""
    operation: Literal["single", "long", "big", "variable"] = "variable"
    """An operation has one convolution, two in a row, 2x2, or any of five patterns."""
    max_kernel: int = Field(7, ge=3)
    """Height and width are odd, from 3."""
    max_dilation: int = Field(3, ge=1)
    """A 3x3 kernel has at most this; it is 1 less for every further pixel to the side."""
    groups: tuple[Annotated[int, Field(ge=1)], ...] = Field((1, 2, 4, 8), min_length=1)
    bottleneck: int = Field(4, ge=1)
    """The 1x1 convolution gives at most so many times the operation's output."""
    bottleneck_rule: Literal["release", "constant", "capped"] = "release"
    """It says what the 1x1 convolution's output n_b is, from n_in and n_out. release: the largest multiple of n_out
    within n_in and the bottleneck. constant: bottleneck * n_out (SMASHv1). capped: n_in, at most bottleneck * n_out
    (SMASHv2)."""
    max_bottleneck: int = Field(2, ge=1)
    """n_b is at most so many times N_max: the inputs of the free convolutions w0 and w2."""
    columns: int = Field(1, ge=1)
    """n_b is at most so many times N_max: the columns of the generated matrix."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for group in self.groups:
            if self.unit % group:
                raise ValueError(f"groups: {group} does not divide the unit of {self.unit} channels")
        if self.max_kernel % 2 == 0:
            raise ValueError(f"max_kernel {self.max_kernel} is even; use {self.max_kernel + 1}")
        for size in self.bank_sizes or ():
            if size > self.max_units:
                raise ValueError(f"bank_sizes: {size} units are more than max_units {self.max_units}")
        for block in self.block_sizes:
            if not block.bank_sizes:
                raise ValueError(
                    f"block {block.number + 1}, {block.inputs} channels, has no bank size that holds enough for one "
                    f"operation; use a larger width, or a smaller unit or compression"
                )
        return self

    @cached_property
    def block_sizes(self) -> tuple[BlockSize, BlockSize, BlockSize]:
        """Budget and banks of the three blocks: those of a wide residual network of `depth` and `width`."""
        base = 2 * self.unit
        grows = base * self.width
        first = grows
        second = (first + 2 * grows) // 2 // base * base
        third = (second + 2 * grows) // 2 // base * base
        sizes = tuple(sorted(set(self.bank_sizes or range(1, self.max_units + 1))))

        def block(number: int, inputs: int, channels: int, reads: int) -> BlockSize:
            return BlockSize(number, inputs, channels, reads, self.unit, self.compression, self.max_units, sizes)

        return (
            block(0, first, first + 2 * grows, first + self.depth * grows),
            block(1, second, second + 2 * grows, second + 2 * self.depth * grows),
            block(2, third, 4 * grows, third + 4 * self.depth * grows),
        )

    @property
    def max_banks(self) -> int:
        """The banks of the largest block if they are of one unit: places in the hypernetwork's input."""
        return max(block.banks(1) for block in self.block_sizes)

    @property
    def max_channels(self) -> int:
        """N_max: the channels of the largest output of an operation."""
        return self.max_units * self.unit

    @property
    def slice_channels(self) -> int:
        """The channels that a slice of the hypernetwork's output has weights for."""
        return self.compression * self.unit

    @property
    def unit_choices(self) -> range:
        """The sizes of an operation's output, in units."""
        return range(1, self.max_units + 1)

    @cached_property
    def masks(self) -> dict[Mask, float]:
        """Which convolutions an operation may have, with the sampler's probabilities."""
        return {(m[0] == "1", m[1] == "1", m[2] == "1", m[3] == "1"): p for m, p in _MASKS[self.operation].items()}

    @property
    def places(self) -> int:
        """How many convolutions are decided: up to the last that an operation may have."""
        return max(place for mask in self.masks for place in range(4) if mask[place]) + 1

    @property
    def kernels(self) -> range:
        """The heights and widths of a convolution."""
        return range(3, self.max_kernel + 1, 2)

    @property
    def dilations(self) -> range:
        """The dilations of a convolution, along a dimension."""
        return range(1, self.max_dilation + 1)

    @cached_property
    def convolution_values(self) -> dict[str, Sequence[int]]:
        """What a convolution is made of, in order, and the values that each number may have."""
        return {
            "kernel_height": self.kernels,
            "kernel_width": self.kernels,
            "dilation_height": self.dilations,
            "dilation_width": self.dilations,
            "groups": self.groups,
        }

    @cached_property
    def convolution_choices(self) -> list[tuple[str, Sequence[int]]]:
        """What is decided of a convolution: the numbers that may have more than one value."""
        return [(word, values) for word, values in self.convolution_values.items() if len(values) > 1]

    def most_dilation(self, kernel: int) -> int:
        """The largest dilation along a dimension in which the kernel has this size."""
        return max(1, self.max_dilation + 1 - (kernel - 1) // 2)

    def fit_dilation(self, kernel: Pair, dilation: Pair) -> Pair:
        """The dilation, or the largest that the kernel allows."""
        return min(dilation[0], self.most_dilation(kernel[0])), min(dilation[1], self.most_dilation(kernel[1]))
