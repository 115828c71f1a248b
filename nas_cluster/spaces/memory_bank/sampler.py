"""Random architectures as the released code draws them, and perturbed ones.

A block has a bank size and a budget; operations are added while the budget pays another. An element of an operation is
what is drawn at once: its reads, its size, its writes, which convolutions it has, their kernels, dilations and groups.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from pydantic import Field, model_validator

from nas_cluster.core.component import Options
from nas_cluster.spaces.memory_bank.architecture import BankArchitecture, BankBlock, BankOp, Convolution
from nas_cluster.spaces.memory_bank.geometry import Geometry
from nas_cluster.spaces.memory_bank.sizes import BlockSize
from nas_cluster.spaces.memory_bank.walk import Walk

__all__ = ["Sampler", "SamplingOptions"]

_Pairs = list[tuple[int, int]]


class SamplingOptions(Options):
    """How random architectures are drawn; every other architecture stays in the space."""

    min_budget: float = Field(0.3, gt=0, le=1)
    """A block's share of its budget is drawn evenly between this and max_budget."""
    max_budget: float = Field(1.0, gt=0, le=1)
    max_kernel: int | None = Field(None, ge=3)
    """Kernels are at most so large; null: as in the space."""
    first_max_budget: float = Field(0.5, gt=0, le=1)
    """max_budget while the hypernetwork begins to learn, and kernels are 3x3: both grow to their final values ..."""
    growing: float = Field(0.5, ge=0, le=1)
    """... over this share of the phases; 0: they have them from the start."""

    @model_validator(mode="after")
    def _ordered(self) -> SamplingOptions:
        if not self.min_budget <= self.first_max_budget <= self.max_budget:
            raise ValueError("min_budget, first_max_budget and max_budget must be in this order")
        return self


class Sampler:
    """It draws architectures of a geometry, as the options say."""

    def __init__(self, geometry: Geometry, options: SamplingOptions) -> None:
        self._geometry, self._options = geometry, options
        largest = options.max_kernel or geometry.max_kernel
        self._kernel_choices = [k for k in geometry.kernels if k <= largest]

    def sample(self, rng: np.random.Generator) -> BankArchitecture:
        """A random architecture."""
        first, second, third = (self._sample_block(block, rng) for block in self._geometry.block_sizes)
        return BankArchitecture(blocks=(first, second, third))

    def perturb(self, architecture: BankArchitecture, probability: float, rng: np.random.Generator) -> BankArchitecture:
        """Every element of every operation is drawn anew with this probability, the others are fitted to what came
        before them. Bank sizes stay; a block ends early when its operations have become too dear for its budget."""
        first, second, third = (
            self._perturb_block(block, old, probability, rng)
            for block, old in zip(self._geometry.block_sizes, architecture.blocks, strict=True)
        )
        return BankArchitecture(blocks=(first, second, third))

    def _sample_block(self, block: BlockSize, rng: np.random.Generator) -> BankBlock:
        sizes = block.bank_sizes
        size = sizes[int(rng.integers(len(sizes)))]
        share = rng.uniform(self._options.min_budget, self._options.max_budget)
        walk = Walk(block, size, int(share * block.slices))
        ops: list[BankOp] = []
        while walk.goes_on and len(ops) < self._geometry.max_ops:
            reads = _reads(walk, rng)
            units = _units(walk, reads, rng)
            mask = self._mask(rng)
            kernels = self._kernels(rng)
            convolutions = _convolutions(mask, kernels, self._dilations(kernels, rng), self._groups(rng))
            ops.append(BankOp(reads=reads, units=units, writes=_writes(walk, units, rng), convolutions=convolutions))
            walk.take(ops[-1])
        return BankBlock(bank_size=size, ops=tuple(ops))

    def _perturb_block(
        self, block: BlockSize, old: BankBlock, probability: float, rng: np.random.Generator
    ) -> BankBlock:
        walk = Walk(block, old.bank_size, block.slices)
        ops: list[BankOp] = []
        for op in old.ops:
            if not walk.goes_on:
                break
            anew = (rng.random(7) < probability).tolist()
            reads = _reads(walk, rng) if anew[0] else walk.fit_reads(op.reads)
            units = _units(walk, reads, rng) if anew[1] else op.units
            writes = _writes(walk, units, rng) if anew[2] else walk.fit_writes(units, op.writes)
            mask = self._mask(rng) if anew[3] else op.mask
            kernels, groups = self._kernels(rng), self._groups(rng)
            for place, convolution in enumerate(op.convolutions):
                if convolution is not None and not anew[4]:
                    kernels[place] = convolution.kernel
            dilations = self._dilations(kernels, rng)
            for place, convolution in enumerate(op.convolutions):
                if convolution is not None and not anew[5]:
                    dilations[place] = self._geometry.fit_dilation(kernels[place], convolution.dilation)
                if convolution is not None and not anew[6]:
                    groups[place] = convolution.groups
            convolutions = _convolutions(mask, kernels, dilations, groups)
            ops.append(BankOp(reads=reads, units=units, writes=writes, convolutions=convolutions))
            walk.take(ops[-1])
        return BankBlock(bank_size=old.bank_size, ops=tuple(ops))

    def _mask(self, rng: np.random.Generator) -> Sequence[bool]:
        masks = self._geometry.masks
        return [*masks][_weighted([*masks.values()], rng)]

    def _kernels(self, rng: np.random.Generator) -> _Pairs:
        kernels = self._kernel_choices
        chosen = rng.integers(len(kernels), size=(4, 2)).tolist()
        return [(kernels[i], kernels[j]) for i, j in chosen]

    def _dilations(self, kernels: _Pairs, rng: np.random.Generator) -> _Pairs:
        most = self._geometry.most_dilation
        chosen = rng.random((4, 2)).tolist()
        return [(1 + int(x * most(k)), 1 + int(y * most(m))) for (k, m), (x, y) in zip(kernels, chosen, strict=True)]

    def _groups(self, rng: np.random.Generator) -> list[int]:
        groups = self._geometry.groups
        return [groups[i] for i in rng.integers(len(groups), size=4).tolist()]


def _reads(walk: Walk, rng: np.random.Generator) -> tuple[int, ...]:
    """How many are read is drawn evenly, and is less if the budget cannot pay them; which ones is drawn evenly."""
    counts = walk.read_counts
    count = min(counts[int(rng.integers(len(counts)))], walk.payable)
    return tuple(sorted(rng.permutation(walk.live)[:count].tolist()))


def _units(walk: Walk, reads: Sequence[int], rng: np.random.Generator) -> int:
    """The size is near that of what is read: its weight is 1 / (0.01 + 10 * difference)."""
    choices = walk.unit_choices
    return choices[_weighted([1 / (0.01 + 10 * abs(n - len(reads) * walk.bank_size)) for n in choices], rng)]


def _writes(walk: Walk, units: int, rng: np.random.Generator) -> tuple[int, ...]:
    """As many banks are written as there are pieces, or more with a probability that falls by e for each, up to half of
    the live ones; live banks and the first empty ones are alike, and of the empty ones then the first are taken."""
    pieces = walk.pieces(units)
    count = pieces + _weighted([math.exp(-n) for n in range(max(walk.live // 2 - pieces, 0) + 1)], rng)
    chosen = rng.permutation(walk.live + walk.new_banks(units))[:count].tolist()
    return walk.fit_writes(units, sorted(chosen))


def _weighted(weights: Sequence[float], rng: np.random.Generator) -> int:
    """An index with a probability in proportion to its weight. Several times faster than `rng.choice` for a few."""
    left = rng.random() * math.fsum(weights)
    for index, weight in enumerate(weights):
        left -= weight
        if left < 0:
            return index
    return len(weights) - 1


def _convolutions(
    mask: Sequence[bool], kernels: _Pairs, dilations: _Pairs, groups: Sequence[int]
) -> tuple[Convolution | None, Convolution | None, Convolution | None, Convolution | None]:
    w0, w1, w2, w3 = (
        Convolution(kernel=kernel, dilation=dilation, groups=group) if there else None
        for there, kernel, dilation, group in zip(mask, kernels, dilations, groups, strict=True)
    )
    return w0, w1, w2, w3
