"""Random architectures as the released code draws them, and perturbed ones.

A block has a bank size and a budget; operations are added while the budget pays another. An element of an operation is
what is drawn at once: its reads, its size, its writes, which convolutions it has, their kernels, dilations and groups.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nas_cluster.spaces.memory_bank.architecture import BankArchitecture, BankBlock, BankOp, Convolution
from nas_cluster.spaces.memory_bank.sizes import BlockSize
from nas_cluster.spaces.memory_bank.walk import Walk

if TYPE_CHECKING:
    from nas_cluster.spaces.memory_bank.space import MemoryBank

__all__ = ["perturb", "sample"]

_Pairs = list[tuple[int, int]]


def sample(space: MemoryBank, rng: np.random.Generator) -> BankArchitecture:
    """A random architecture of the distribution that `space.sampling` describes."""
    first, second, third = (_sample_block(space, block, rng) for block in space.block_sizes)
    return BankArchitecture(blocks=(first, second, third))


def perturb(
    space: MemoryBank, architecture: BankArchitecture, probability: float, rng: np.random.Generator
) -> BankArchitecture:
    """Every element of every operation drawn anew with this probability, the others fitted to what came before them.

    Bank sizes stay; a block ends early when its operations have become too dear for its budget.
    """
    first, second, third = (
        _perturb_block(space, block, old, probability, rng)
        for block, old in zip(space.block_sizes, architecture.blocks, strict=True)
    )
    return BankArchitecture(blocks=(first, second, third))


def _sample_block(space: MemoryBank, block: BlockSize, rng: np.random.Generator) -> BankBlock:
    sizes = space.sizes_of(block)
    size = sizes[int(rng.integers(len(sizes)))]
    share = rng.uniform(space.sampling.min_budget, space.sampling.max_budget)
    walk = Walk(block, size, int(share * block.slices))
    ops: list[BankOp] = []
    while walk.goes_on and len(ops) < space.max_ops:
        reads = _reads(walk, rng)
        units = _units(walk, reads, rng)
        mask = _mask(space, rng)
        kernels = _kernels(space, rng)
        convolutions = _convolutions(mask, kernels, _dilations(space, kernels, rng), _groups(space, rng))
        ops.append(BankOp(reads=reads, units=units, writes=_writes(walk, units, rng), convolutions=convolutions))
        walk.take(ops[-1])
    return BankBlock(bank_size=size, ops=tuple(ops))


def _perturb_block(
    space: MemoryBank, block: BlockSize, old: BankBlock, probability: float, rng: np.random.Generator
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
        mask = _mask(space, rng) if anew[3] else op.mask
        kernels, groups = _kernels(space, rng), _groups(space, rng)
        for place, convolution in enumerate(op.convolutions):
            if convolution is not None and not anew[4]:
                kernels[place] = convolution.kernel
        dilations = _dilations(space, kernels, rng)
        for place, convolution in enumerate(op.convolutions):
            if convolution is not None and not anew[5]:
                dilations[place] = space.fit_dilation(kernels[place], convolution.dilation)
            if convolution is not None and not anew[6]:
                groups[place] = convolution.groups
        convolutions = _convolutions(mask, kernels, dilations, groups)
        ops.append(BankOp(reads=reads, units=units, writes=writes, convolutions=convolutions))
        walk.take(ops[-1])
    return BankBlock(bank_size=old.bank_size, ops=tuple(ops))


def _reads(walk: Walk, rng: np.random.Generator) -> tuple[int, ...]:
    """How many, evenly; if the budget cannot pay them, as many as it can; which, evenly."""
    counts = walk.read_counts
    count = min(counts[int(rng.integers(len(counts)))], walk.payable)
    return tuple(sorted(rng.permutation(walk.live)[:count].tolist()))


def _units(walk: Walk, reads: Sequence[int], rng: np.random.Generator) -> int:
    """Near the size of what is read: 1 / (0.01 + 10 * difference)."""
    choices = walk.unit_choices
    return choices[_weighted([1 / (0.01 + 10 * abs(n - len(reads) * walk.bank_size)) for n in choices], rng)]


def _writes(walk: Walk, units: int, rng: np.random.Generator) -> tuple[int, ...]:
    """As many banks as there are pieces, or more with a probability that falls by e for each, up to half of the live
    ones; live banks and the first empty ones alike, and of the empty ones then the first."""
    pieces = walk.pieces(units)
    count = pieces + _weighted([math.exp(-n) for n in range(max(walk.live // 2 - pieces, 0) + 1)], rng)
    chosen = rng.permutation(walk.live + walk.new_banks(units))[:count].tolist()
    return walk.fit_writes(units, sorted(chosen))


def _mask(space: MemoryBank, rng: np.random.Generator) -> tuple[bool, ...]:
    return space.masks[_weighted([weight for _, weight in space.masks], rng)][0]


def _kernels(space: MemoryBank, rng: np.random.Generator) -> _Pairs:
    largest = space.sampling.max_kernel or space.max_kernel
    kernels = [k for k in space.kernels if k <= largest]
    chosen = rng.integers(len(kernels), size=(4, 2)).tolist()
    return [(kernels[i], kernels[j]) for i, j in chosen]


def _dilations(space: MemoryBank, kernels: _Pairs, rng: np.random.Generator) -> _Pairs:
    chosen = rng.random((4, 2)).tolist()
    return [
        (1 + int(x * space.most_dilation(k)), 1 + int(y * space.most_dilation(m)))
        for (k, m), (x, y) in zip(kernels, chosen, strict=True)
    ]


def _groups(space: MemoryBank, rng: np.random.Generator) -> list[int]:
    return [space.groups[i] for i in rng.integers(len(space.groups), size=4).tolist()]


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
