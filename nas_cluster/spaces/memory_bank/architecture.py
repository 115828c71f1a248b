"""An architecture as plain data: per block, operations that read banks of feature maps and write banks (Brock et al.
2018, section 3.1). Banks fill in order: a block's input is in the first ones, and who writes a new one writes the next.

Sizes are in units of N channels: a bank has `bank_size` units, an operation's output `units`. The options of the
networks stand below.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from nas_cluster.core.component import Options
from nas_cluster.spaces.base import Architecture

__all__ = [
    "BankArchitecture",
    "BankBlock",
    "BankChildOptions",
    "BankOp",
    "Convolution",
    "HyperNetOptions",
    "Pair",
]

Pair = tuple[int, int]


class Convolution(Options):
    """A k x k convolution of stride 1, padded so that the size stays. Height comes before width."""

    kernel: Pair
    dilation: Pair = (1, 1)
    groups: int = Field(1, ge=1)

    @property
    def padding(self) -> Pair:
        """The zeros on every side."""
        (k, m), (d, e) = self.kernel, self.dilation
        return (k - 1) * d // 2, (m - 1) * e // 2

    @field_validator("kernel")
    @classmethod
    def _odd(cls, kernel: Pair) -> Pair:
        if any(k < 1 or k % 2 == 0 for k in kernel):
            raise ValueError("kernels are odd")
        return kernel


class BankOp(Options):
    """A 1x1 convolution reads all banks, then up to two paths of up to two convolutions follow.

    reads, writes: banks, ascending. convolutions: w0 begins the first path and w1 ends it, w2 begins the second and w3
    ends it; null: not there. An output of more than one bank's size is cut into pieces, which the written banks get in
    turn; who writes more banks than there are pieces begins again with the first.
    """

    reads: tuple[int, ...] = Field(min_length=1)
    writes: tuple[int, ...] = Field(min_length=1)
    units: int = Field(ge=1)
    convolutions: tuple[Convolution | None, Convolution | None, Convolution | None, Convolution | None]

    @property
    def mask(self) -> tuple[bool, ...]:
        """It says which of the four convolutions there are."""
        return tuple(convolution is not None for convolution in self.convolutions)

    @model_validator(mode="after")
    def _ordered(self) -> BankOp:
        for word, banks in (("reads", self.reads), ("writes", self.writes)):
            if list(banks) != sorted(set(banks)) or banks[0] < 0:
                raise ValueError(f"{word} {list(banks)}: banks are numbers from 0, ascending and different")
        return self


class BankBlock(Options):
    """Operations follow each other on banks of one size."""

    bank_size: int = Field(ge=1)
    ops: tuple[BankOp, ...] = Field(min_length=1)


class BankArchitecture(Architecture):
    """There is one block for each of the three sizes of the feature maps."""

    blocks: tuple[BankBlock, BankBlock, BankBlock]


class BankChildOptions(Options):
    """How a child is built."""

    norm: Literal["none", "sandwich", "full"] = "sandwich"
    """In an operation: none, as with generated weights; on its input and after its 1x1 convolution; before every
    convolution. A child built alone is the "resulting network", in the release with sandwich."""
    stem_kernel: Literal[1, 3, 5, 7] = 7
    """The convolution of the images has this kernel."""


class HyperNetOptions(Options):
    """The network that writes the 1x1 weights: a dense net without downsampling (the paper's appendix A)."""

    first: int = Field(7, ge=1)
    """The first convolution has so many filters."""
    growth: int = Field(10, ge=1)
    layers: tuple[Annotated[int, Field(ge=1)], ...] = Field((8, 10, 4), min_length=1)
    """Each dense block has so many; between two of them a transition halves the channels."""
    transition_kernel: Literal[1, 3] = 3
    """It is 3 in the release, 1 in the paper."""
