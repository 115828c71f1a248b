"""Decisions: all that a controller sees of a search space.

A space is a list of T decisions in a fixed order; an architecture is T integers (tokens), one per decision. One
controller therefore serves every space. Shapes: B children, T decisions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

__all__ = ["Decision", "DecisionSpec", "Head", "Tokens"]

Head = Literal["choice", "pointer", "skips", "anchor"]
Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Decision:
    """One step of the controller.

    head:
        choice   softmax over `options` values; token = the value chosen
        pointer  attention over the hidden states of the steps in `candidates`; token = position in `candidates`
        skips    one independent Bernoulli per step in `candidates` (Zoph & Le 2017, section 3.3);
                 token = bit mask, bit j set when candidate j is selected
        anchor   no choice (token 0): the step exists only so that later steps can attend to its hidden state
    group: decisions of one group share their embedding and softmax ("filter_height" of every layer).
    labels: a word per option, for reports and drawings.
    bias: of a choice or a pointer, what is added to its logits for ever: a prior of the space, never learned.
    """

    name: str
    head: Head
    options: int
    group: str
    candidates: tuple[int, ...] = ()
    labels: tuple[str, ...] = ()
    bias: tuple[float, ...] = ()

    @property
    def cardinality(self) -> int:
        """How many tokens are legal."""
        return 1 << self.options if self.head == "skips" else self.options


class DecisionSpec(Sequence[Decision]):
    """The T decisions of a space, checked once: names are unique and candidates point backwards."""

    def __init__(self, decisions: Sequence[Decision]) -> None:
        self._decisions = tuple(decisions)
        names = [d.name for d in self._decisions]
        if len(set(names)) != len(names):
            raise ValueError("decision names must be unique")
        for step, d in enumerate(self._decisions):
            if d.head in ("pointer", "skips"):
                if d.options != len(d.candidates):
                    raise ValueError(f"{d.name}: options must equal the number of candidates")
                if any(not 0 <= c < step for c in d.candidates):
                    raise ValueError(f"{d.name}: candidates must be earlier steps")
            if d.head == "anchor" and d.options != 1:
                raise ValueError(f"{d.name}: an anchor has one option")
            if d.options < (0 if d.head == "skips" else 1):
                raise ValueError(f"{d.name}: no options")
            if d.head == "skips" and d.options > 62:
                raise ValueError(f"{d.name}: at most 62 skip candidates fit in a token")
            if d.labels and d.head != "skips" and len(d.labels) != d.options:
                raise ValueError(f"{d.name}: one label per option")
            if d.bias and (d.head not in ("choice", "pointer") or len(d.bias) != d.options):
                raise ValueError(f"{d.name}: one bias per option, of a choice or a pointer")

    def __len__(self) -> int:
        return len(self._decisions)

    def __getitem__(self, index: int) -> Decision:  # type: ignore[override]
        return self._decisions[index]

    def __iter__(self) -> Iterator[Decision]:
        return iter(self._decisions)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DecisionSpec) and self._decisions == other._decisions

    def __hash__(self) -> int:
        return hash(self._decisions)

    @cached_property
    def log_size(self) -> float:
        """Natural logarithm of the number of token sequences."""
        return math.fsum(d.options * math.log(2) if d.head == "skips" else math.log(d.options) for d in self)

    @property
    def size(self) -> int:
        """Exact number of token sequences."""
        return math.prod(d.cardinality for d in self)

    def check(self, tokens: Sequence[int]) -> Tokens:
        """Return `tokens` as a tuple, or raise ValueError naming the first decision that is out of range."""
        if len(tokens) != len(self):
            raise ValueError(f"{len(tokens)} tokens for {len(self)} decisions")
        for d, token in zip(self, tokens, strict=True):
            if not 0 <= token < d.cardinality:
                raise ValueError(f"{d.name}: token {token} is not in 0..{d.cardinality - 1}")
        return tuple(int(t) for t in tokens)

    def fits(self, tokens: Sequence[int]) -> bool:
        """Whether `check` would accept these tokens."""
        return len(tokens) == len(self) and all(0 <= t < d.cardinality for d, t in zip(self, tokens, strict=True))

    @property
    def uniform(self) -> bool:
        """Whether `random` draws every sequence equally often, with log-probability -log_size. False in a space whose
        random architectures have another distribution."""
        return True

    def random(self, rng: np.random.Generator) -> Tokens:
        """Uniform tokens: every choice equally likely, every skip with probability 1/2."""
        return tuple(int(rng.integers(d.cardinality)) for d in self)

    def resample(self, tokens: Sequence[int], probability: float, rng: np.random.Generator) -> Tokens:
        """Each decision drawn anew with this probability, by itself; it may come out as it was."""
        drawn = self.random(rng)
        return tuple(
            new if rng.random() < probability else old for old, new in zip(self.check(tokens), drawn, strict=True)
        )

    def mutate(self, tokens: Sequence[int], rng: np.random.Generator, among: Sequence[int] | None = None) -> Tokens:
        """Change exactly one decision (of the steps `among`): a choice to another value, a skip mask by one bit."""
        tokens = list(self.check(tokens))
        open_steps = [t for t in (range(len(self)) if among is None else among) if self[t].cardinality > 1]
        if not open_steps:
            return tuple(tokens)
        step = int(rng.choice(open_steps))
        decision = self[step]
        if decision.head == "skips":
            tokens[step] ^= 1 << int(rng.integers(decision.options))
        else:
            tokens[step] = (tokens[step] + 1 + int(rng.integers(decision.options - 1))) % decision.options
        return tuple(tokens)
