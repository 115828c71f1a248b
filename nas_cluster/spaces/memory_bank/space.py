"""SMASH's space: networks as reads from and writes to memory banks (Brock et al. 2018, sections 3.1, 3.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from nas_cluster.core.component import Options
from nas_cluster.core.decisions import DecisionSpec, Tokens
from nas_cluster.core.drawing import Drawing
from nas_cluster.core.errors import ConfigError, InvalidArchitecture
from nas_cluster.core.task import ImageTask
from nas_cluster.spaces.base import Architecture, SearchSpace
from nas_cluster.spaces.memory_bank.architecture import BankArchitecture, Pair
from nas_cluster.spaces.memory_bank.pictures import draw_block, summarise
from nas_cluster.spaces.memory_bank.published import dense_net, fractal_net, residual_net
from nas_cluster.spaces.memory_bank.sizes import BlockSize, reference_blocks
from nas_cluster.spaces.memory_bank.tokens import decode, encode, spec_of

if TYPE_CHECKING:
    from torch import nn

__all__ = ["BankChildOptions", "HyperNetOptions", "MemoryBank", "SamplingOptions"]

Mask = tuple[bool, bool, bool, bool]
_MASKS: dict[str, dict[str, float]] = {
    "single": {"1000": 1.0},
    "long": {"1100": 1.0},
    "big": {"1111": 1.0},
    "variable": {"1000": 0.05, "1010": 0.10, "1100": 0.15, "1110": 0.25, "1111": 0.45},
}
"""Which of the convolutions w0 to w3 an operation has, and how often the sampler chooses it."""
_LEAST_PIXELS = 4


class SamplingOptions(Options):
    """How random architectures are drawn; every other architecture stays in the space."""

    min_budget: float = Field(0.3, gt=0, le=1)
    """A block's share of its budget is drawn evenly between this and max_budget."""
    max_budget: float = Field(1.0, gt=0, le=1)
    max_kernel: int | None = Field(None, ge=3)
    """Largest kernel; null: the space's."""
    first_max_budget: float = Field(0.5, gt=0, le=1)
    """max_budget while the hypernetwork begins to learn, and kernels are 3x3: both grow to their final values ..."""
    growing: float = Field(0.5, ge=0, le=1)
    """... over this share of the phases; 0: they have them from the start."""

    @model_validator(mode="after")
    def _ordered(self) -> SamplingOptions:
        if not self.min_budget <= self.first_max_budget <= self.max_budget:
            raise ValueError("min_budget, first_max_budget and max_budget must be in this order")
        return self


class HyperNetOptions(Options):
    """The network that writes the 1x1 weights: a dense net without downsampling (the paper's appendix A)."""

    first: int = Field(7, ge=1)
    """Filters of the first convolution."""
    growth: int = Field(10, ge=1)
    layers: tuple[Annotated[int, Field(ge=1)], ...] = Field((8, 10, 4), min_length=1)
    """Of each dense block; between two of them a transition halves the channels."""
    transition_kernel: Literal[1, 3] = 3
    """3 in the release, 1 in the paper."""


class BankChildOptions(Options):
    """How a child is built."""

    norm: Literal["none", "sandwich", "full"] = "sandwich"
    """In an operation: none, as with generated weights; on its input and after its 1x1 convolution; before every
    convolution. A child built alone is the "resulting network", in the release with sandwich."""
    stem_kernel: Literal[1, 3, 5, 7] = 7
    """Of the convolution of the images."""


class MemoryBank(SearchSpace[BankArchitecture]):
    """Per block a bank size and operations; per operation its reads, its size, its writes and up to four convolutions.

    Defaults are those of the released code. A unit is `unit` channels (N); N_max is `unit * max_units`.
    """

    architecture_type: ClassVar[type[Architecture]] = BankArchitecture
    shares_weights: ClassVar[bool] = True
    generates_weights: ClassVar[bool] = True
    shared_form: ClassVar[Mapping[str, Any]] = {"norm": "none"}

    unit: int = Field(8, ge=1)
    max_units: int = Field(8, ge=1)
    """Of an operation's output, and of a bank."""
    depth: int = Field(12, ge=1)
    """Of the wide residual network whose size is the budget: layers of a block."""
    width: int = Field(4, ge=1)
    """Its widening factor."""
    compression: int = Field(2, ge=1)
    """D: units of one slice of the hypernetwork's output."""
    max_ops: int = Field(36, ge=1)
    """Of a block. The release has no bound; the sequence of decisions needs one."""
    bank_sizes: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(None, min_length=1)
    """In units; null: 1 to max_units. Of each block only those that hold enough of its input."""
    operation: Literal["single", "long", "big", "variable"] = "variable"
    """One convolution, two in a row, 2x2, or any of five patterns."""
    max_kernel: int = Field(7, ge=3)
    """Height and width are odd, from 3."""
    max_dilation: int = Field(3, ge=1)
    """Of a 3x3 kernel; 1 less for every further pixel to the side."""
    groups: tuple[Annotated[int, Field(ge=1)], ...] = Field((1, 2, 4, 8), min_length=1)
    bottleneck: int = Field(4, ge=1)
    """The 1x1 convolution gives at most so many times the operation's output."""
    bottleneck_rule: Literal["release", "constant", "capped"] = "release"
    """Of the 1x1 convolution's output n_b, from n_in and n_out. release: the largest multiple of n_out within n_in and
    the bottleneck. constant: bottleneck * n_out (SMASHv1). capped: n_in, at most bottleneck * n_out (SMASHv2)."""
    max_bottleneck: int = Field(2, ge=1)
    """n_b is at most so many times N_max: the inputs of the free convolutions w0 and w2."""
    columns: int = Field(1, ge=1)
    """n_b is at most so many times N_max: the columns of the generated matrix."""
    hypernet: HyperNetOptions = HyperNetOptions()
    sampling: SamplingOptions = SamplingOptions()
    child: BankChildOptions = BankChildOptions()

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
        for block in reference_blocks(self.unit, self.max_units, self.depth, self.width, self.compression):
            if not self.sizes_of(block):
                raise ValueError(
                    f"block {block.number + 1}, {block.inputs} channels, has no bank size that holds enough for one "
                    f"operation; use a larger width, or a smaller unit or compression"
                )
        return self

    # -- what there is to choose from ----------------------------------------------------------------------------------

    @cached_property
    def block_sizes(self) -> tuple[BlockSize, BlockSize, BlockSize]:
        """Budget and banks of the three blocks."""
        return reference_blocks(self.unit, self.max_units, self.depth, self.width, self.compression)

    def sizes_of(self, block: BlockSize) -> tuple[int, ...]:
        """Bank sizes that a block can have, in units, ascending."""
        sizes = self.bank_sizes or range(1, self.max_units + 1)
        return tuple(size for size in sorted(set(sizes)) if block.allows(size))

    @property
    def max_banks(self) -> int:
        """Banks of the largest block if they are of one unit: places in the hypernetwork's input."""
        return max(block.banks(1) for block in self.block_sizes)

    @property
    def unit_choices(self) -> range:
        """Sizes of an operation's output, in units."""
        return range(1, self.max_units + 1)

    @cached_property
    def masks(self) -> tuple[tuple[Mask, float], ...]:
        """Which convolutions an operation may have, with the sampler's probabilities."""
        return tuple(
            ((m[0] == "1", m[1] == "1", m[2] == "1", m[3] == "1"), p) for m, p in _MASKS[self.operation].items()
        )

    @property
    def places(self) -> int:
        """Convolutions that are decided: up to the last that an operation may have."""
        return 4 if self.operation in ("big", "variable") else 2 if self.operation == "long" else 1

    @property
    def kernels(self) -> range:
        """Heights and widths of a convolution."""
        return range(3, self.max_kernel + 1, 2)

    @cached_property
    def convolution_choices(self) -> list[tuple[str, Sequence[int]]]:
        """What is decided of a convolution, in order, with the values."""
        dilations = range(1, self.max_dilation + 1)
        found: list[tuple[str, Sequence[int]]] = [
            ("kernel_height", self.kernels),
            ("kernel_width", self.kernels),
            ("dilation_height", dilations),
            ("dilation_width", dilations),
            ("groups", self.groups),
        ]
        return [(word, options) for word, options in found if len(options) > 1]

    def most_dilation(self, kernel: int) -> int:
        """Largest dilation along a dimension in which the kernel has this size."""
        return max(1, self.max_dilation + 1 - (kernel - 1) // 2)

    def fit_dilation(self, kernel: Pair, dilation: Pair) -> Pair:
        """The dilation, or the largest that the kernel allows."""
        return min(dilation[0], self.most_dilation(kernel[0])), min(dilation[1], self.most_dilation(kernel[1]))

    # -- the interface of a space --------------------------------------------------------------------------------------

    def decisions(self) -> DecisionSpec:
        """Block by block (tokens.py)."""
        return spec_of(self)

    def decode(self, tokens: Sequence[int]) -> BankArchitecture:
        """Tokens (T) to an architecture; what does not fit is fitted (walk.py)."""
        return decode(self, self.decisions().check(tokens))

    def encode(self, architecture: BankArchitecture) -> Tokens:
        """Inverse of `decode`. Raises ValueError: the block, the operation, and what of it this space does not have."""
        return encode(self, architecture)

    def during(self, progress: float) -> Self:
        """Random architectures of the first phases: small budgets and kernels."""
        options = self.sampling
        done = min(1.0, progress / options.growing) if options.growing > 0 else 1.0
        budget = options.first_max_budget + (options.max_budget - options.first_max_budget) * done
        largest = options.max_kernel or self.max_kernel
        kernel = 3 + int((largest - 3) // 2 * done) * 2
        grown = options.model_copy(update={"max_budget": budget, "max_kernel": kernel})
        return self.model_copy(update={"sampling": grown})

    def check(self, task: ImageTask) -> None:
        """Raises ConfigError for images that the two halvings leave nothing of."""
        if min(task.height, task.width) < _LEAST_PIXELS:
            raise ConfigError(f"space: images of {task.height}x{task.width} are too small, a network halves them twice")

    def build_child(self, architecture: BankArchitecture, task: ImageTask) -> nn.Module:
        """The child network (child.py), with free weights."""
        from nas_cluster.spaces.memory_bank.child import BankChild

        if min(task.height, task.width) < _LEAST_PIXELS:
            raise InvalidArchitecture(f"images of {task.height}x{task.width} are halved twice")
        return BankChild(architecture, task, self)

    def build_shared(self, task: ImageTask) -> nn.Module:
        """The network of all children, with its hypernetwork (shared.py)."""
        from nas_cluster.spaces.memory_bank.shared import SharedBanks

        return SharedBanks(task, self)

    def summary(self, architecture: BankArchitecture) -> str:
        """Per block the number of operations, of banks and their channels."""
        return summarise(architecture, self.unit)

    def draw(self, architecture: BankArchitecture) -> list[Drawing]:
        """Each block: which operation reads and writes which banks (the paper's Figure 1)."""
        return [
            draw_block(described, block, self.unit)
            for described, block in zip(architecture.blocks, self.block_sizes, strict=True)
        ]

    @classmethod
    def named(cls) -> Mapping[str, BankArchitecture]:
        """The networks of the paper's Figure 1 as far as the default space's banks and budget go."""
        blocks = cls().block_sizes
        return {"resnet": residual_net(blocks), "densenet": dense_net(blocks), "fractalnet": fractal_net(blocks)}
