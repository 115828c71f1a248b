"""The interface of a search strategy.

A strategy is settings; what changes during a search is explicit and lives on the parameter servers, versioned and
snapshotted together: `weights` (one flat float32 vector, possibly empty) and `state` (small JSON: a baseline, a
population). So random search, policy gradients and evolution are recorded, replayed and resumed by the same code.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from nas_cluster.core.component import Component
from nas_cluster.core.decisions import DecisionSpec, Tokens
from nas_cluster.core.seeds import stream
from nas_cluster.spaces import SearchSpace
from nas_cluster.strategies._adam import Adam

__all__ = ["Gradient", "Proposal", "Proposer", "State", "Strategy", "Vector"]

State = dict[str, Any]
Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Proposal:
    """m architectures from one proposer: what is recorded before any is trained.

    log_probs, entropies: of whole sequences, in nats; None where no policy gave them (a mutation).
    step_log_probs: of every decision (m, T), from strategies whose gradients need them later.
    """

    tokens: tuple[Tokens, ...]
    log_probs: tuple[float | None, ...]
    entropies: tuple[float | None, ...]
    step_log_probs: tuple[tuple[float, ...], ...] | None = None

    @classmethod
    def at_random(cls, spec: DecisionSpec, count: int, seed: int) -> Self:
        """`count` random architectures, each from a stream of its own."""
        tokens = tuple(spec.random(stream(seed, index)) for index in range(count))
        if not spec.uniform:
            return cls(tokens, (None,) * count, (None,) * count)
        return cls(tokens, (-spec.log_size,) * count, (spec.log_size,) * count)


@dataclass(frozen=True)
class Gradient:
    """What one minibatch of rewards teaches: a flat gradient (to descend) and numbers for people to watch."""

    vector: Vector
    scalars: dict[str, float] = field(default_factory=dict)


class Proposer(Protocol):
    """The working part of a strategy in a replica: owns scratch buffers, no state that outlives a call."""

    def propose(self, weights: Vector, state: State, spec: DecisionSpec, count: int, seed: int) -> Proposal:
        """Sample `count` architectures with these weights; the same for the same arguments."""
        ...

    def gradient(
        self, weights: Vector, state: State, spec: DecisionSpec, proposal: Proposal, rewards: Sequence[float]
    ) -> Gradient:
        """Gradient of the loss at `weights` for the proposal's rewards; `state` does not hold these rewards yet.

        The proposal is what was recorded of `propose`: fewer children, where others are controls.
        """
        ...


class Strategy(Component, ABC):
    """Who proposes architectures. Subclasses: `PolicyGradient` (a controller), `random`, populations."""

    package: ClassVar[str] = "nas_cluster.strategies"
    word: ClassVar[str] = "strategy"

    @property
    def optimizer(self) -> Adam:
        """What the parameter servers apply to the summed gradients."""
        return Adam()

    @property
    def learns(self) -> bool:
        """False when rewards change nothing (random search); its gradients are empty vectors."""
        return True

    @property
    def learning_epochs(self) -> int:
        """Gradients taken from one minibatch. One is taken at the weights that sampled it; several follow each other,
        each at the weights then current, which the loss must correct for (PPO)."""
        return 1

    def check(self, space: SearchSpace[Any]) -> list[str]:
        """Reasons, one line each, why this strategy cannot search `space`."""
        return []

    def initial_weights(self, spec: DecisionSpec, seed: int) -> Mapping[str, NDArray[np.float32]]:
        """The named tensors that the parameter servers hold; empty when there is nothing to learn."""
        return {}

    def initial_state(self) -> State:
        """State before the first reward."""
        return {}

    def observe(self, state: State, tokens: Sequence[Tokens], rewards: Sequence[float]) -> State:
        """State after one minibatch, in the order in which the servers applied it, with its last gradient. Pure;
        imports no torch."""
        return state

    @abstractmethod
    def proposer(self, spec: DecisionSpec) -> Proposer:
        """A proposer for this process. Called once; may import torch."""
