"""The decisions that describe an architecture: those of `max_ops` operations a block, whatever it has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np

from nas_cluster.core.decisions import Decision, DecisionSpec, Tokens
from nas_cluster.spaces.memory_bank.architecture import BankArchitecture
from nas_cluster.spaces.memory_bank.geometry import Geometry
from nas_cluster.spaces.memory_bank.sampler import Sampler, SamplingOptions
from nas_cluster.spaces.memory_bank.tokens import (
    decode,
    selections,
    tokens_of,
    tokens_per_op,
)

__all__ = ["BankSpec", "spec_of"]

_TRIES = 20


class BankSpec(DecisionSpec):
    """Its random architectures are those of the released sampler, and what is drawn anew is an element of one."""

    def __init__(self, geometry: Geometry, sampling: SamplingOptions) -> None:
        super().__init__(list(_decisions(geometry)))
        self._geometry = geometry
        self._sampler = Sampler(geometry, sampling)

    @property
    def uniform(self) -> bool:
        """Random tokens are not uniform."""
        return False

    def random(self, rng: np.random.Generator) -> Tokens:
        """The tokens of an architecture of the sampler."""
        return tokens_of(self._geometry, self._sampler.sample(rng))

    def resample(self, tokens: Sequence[int], probability: float, rng: np.random.Generator) -> Tokens:
        """Every element of every operation is drawn anew with this probability."""
        before = decode(self._geometry, self.check(tokens))
        return tokens_of(self._geometry, self._sampler.perturb(before, probability, rng))

    def mutate(self, tokens: Sequence[int], rng: np.random.Generator, among: Sequence[int] | None = None) -> Tokens:
        """Exactly one decision changes, of an operation that is there, so that the architecture changes if a few tries
        find such a change: banks and convolutions that are not there are decided too."""
        before = decode(self._geometry, self.check(tokens))
        for _ in range(_TRIES):
            changed = super().mutate(tokens, rng, self._used(before) if among is None else among)
            if decode(self._geometry, changed) != before:
                break
        return changed

    def _used(self, architecture: BankArchitecture) -> list[int]:
        """The steps that are about bank sizes, the number of operations, or an operation that is there."""
        steps: list[int] = []
        step = 0
        for block, described in zip(self._geometry.block_sizes, architecture.blocks, strict=True):
            length = tokens_per_op(self._geometry, block)
            first = step + block.most_banks + 2
            steps += [step, *range(first - 1, first + length * len(described.ops))]
            step = first + length * self._geometry.max_ops
        return steps


@lru_cache(maxsize=16)
def spec_of(geometry: Geometry, sampling: SamplingOptions) -> BankSpec:
    """The decisions of a space: they are thousands, so they are built once."""
    return BankSpec(geometry, sampling)


def _decisions(geometry: Geometry) -> Iterator[Decision]:
    """A block has the bank size, an anchor for every bank, the number of operations, then the operations."""
    step = 0
    for block in geometry.block_sizes:
        name, sizes = f"block_{block.number + 1}", block.bank_sizes
        yield Decision(f"{name}.bank_size", "choice", len(sizes), f"bank_size_{name}", labels=tuple(map(str, sizes)))
        anchors = tuple(range(step + 1, step + 1 + block.most_banks))
        yield from (Decision(f"{name}.bank_{bank}", "anchor", 1, "bank") for bank in range(block.most_banks))
        yield Decision(f"{name}.ops", "choice", geometry.max_ops, "ops")
        for op in range(geometry.max_ops):
            yield from _op_decisions(geometry, f"{name}.op_{op}", anchors)
        step += block.most_banks + 2 + geometry.max_ops * tokens_per_op(geometry, block)


def _op_decisions(geometry: Geometry, name: str, anchors: tuple[int, ...]) -> Iterator[Decision]:
    """Banks are chosen by attention over their anchors, then what the operation computes."""

    def selection(word: str) -> Iterator[Decision]:
        for part, banks in enumerate(selections(len(anchors))):
            labels = tuple(f"bank {bank}" for bank in banks)
            yield Decision(f"{name}.{word}_{part}", "skips", len(banks), word, tuple(anchors[b] for b in banks), labels)

    def choice(word: str, options: Iterable[object], group: str) -> Decision:
        labels = tuple(map(str, options))
        return Decision(f"{name}.{word}", "choice", len(labels), group, labels=labels)

    yield from selection("reads")
    yield choice("units", geometry.unit_choices, "units")
    yield from selection("writes")
    if len(geometry.masks) > 1:
        words = ("".join("01"[there] for there in mask) for mask in geometry.masks)
        yield choice("convolutions", words, "convolutions")
    for place in range(geometry.places):
        for word, options in geometry.convolution_choices:
            yield choice(f"w{place}.{word}", options, word.partition("_")[0])
