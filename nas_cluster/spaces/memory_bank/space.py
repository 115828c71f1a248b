"""SMASH's space: networks as reads from and writes to memory banks (Brock et al. 2018, sections 3.1, 3.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self

from nas_cluster.core.decisions import DecisionSpec, Tokens
from nas_cluster.core.drawing import Drawing
from nas_cluster.core.errors import ConfigError, InvalidArchitecture
from nas_cluster.core.task import ImageTask
from nas_cluster.spaces.base import Architecture, SearchSpace
from nas_cluster.spaces.memory_bank.architecture import BankArchitecture, BankChildOptions, HyperNetOptions
from nas_cluster.spaces.memory_bank.decisions import spec_of
from nas_cluster.spaces.memory_bank.geometry import Geometry
from nas_cluster.spaces.memory_bank.pictures import draw_block, summarise
from nas_cluster.spaces.memory_bank.published import dense_net, fractal_net, residual_net
from nas_cluster.spaces.memory_bank.sampler import SamplingOptions
from nas_cluster.spaces.memory_bank.tokens import decode, encode

if TYPE_CHECKING:
    from torch import nn

__all__ = ["MemoryBank"]

_LEAST_PIXELS = 4


class MemoryBank(Geometry, SearchSpace[BankArchitecture]):
    """A block has a bank size and operations, an operation its reads, size, writes and up to four convolutions.

    Its numbers are options of the space itself; what is built from them takes them alone, as `geometry`.
    """

    architecture_type: ClassVar[type[Architecture]] = BankArchitecture
    shares_weights: ClassVar[bool] = True
    generates_weights: ClassVar[bool] = True
    shared_form: ClassVar[Mapping[str, Any]] = {"norm": "none"}

    hypernet: HyperNetOptions = HyperNetOptions()
    sampling: SamplingOptions = SamplingOptions()
    child: BankChildOptions = BankChildOptions()

    @cached_property
    def geometry(self) -> Geometry:
        """The numbers alone, without how architectures are drawn and networks built."""
        return Geometry(**self.model_dump(include=set(Geometry.model_fields)))

    def decisions(self) -> DecisionSpec:
        """Blocks are decided one after the other (decisions.py)."""
        return spec_of(self.geometry, self.sampling)

    def decode(self, tokens: Sequence[int]) -> BankArchitecture:
        """The architecture that tokens (T) stand for; what does not fit is fitted (walk.py)."""
        return decode(self.geometry, self.decisions().check(tokens))

    def encode(self, architecture: BankArchitecture) -> Tokens:
        """The tokens that `decode` turns into this architecture. Raises ValueError, which names the block, the
        operation, and what of it this space does not have."""
        return encode(self.geometry, architecture)

    def during(self, progress: float) -> Self:
        """The first phases draw random architectures with small budgets and kernels."""
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
        return BankChild(self.geometry, architecture, task, self.child)

    def build_shared(self, task: ImageTask) -> nn.Module:
        """The network of all children, with its hypernetwork (shared.py)."""
        from nas_cluster.spaces.memory_bank.shared import SharedBanks

        return SharedBanks(self.geometry, task, self.hypernet, self.child)

    def summary(self, architecture: BankArchitecture) -> str:
        """The line says, block by block, how many banks of how many channels there are, and how many operations."""
        return summarise(architecture, self.unit)

    def draw(self, architecture: BankArchitecture) -> list[Drawing]:
        """Each block has a picture of which operation reads and writes which banks (the paper's Figure 1)."""
        return [
            draw_block(described, block, self.unit)
            for described, block in zip(architecture.blocks, self.block_sizes, strict=True)
        ]

    @classmethod
    def named(cls) -> Mapping[str, BankArchitecture]:
        """The networks of the paper's Figure 1 as far as the default space's banks and budget go."""
        blocks = cls().block_sizes
        return {"resnet": residual_net(blocks), "densenet": dense_net(blocks), "fractalnet": fractal_net(blocks)}
