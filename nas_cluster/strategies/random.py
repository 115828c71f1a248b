"""Random search: the comparator that every controller must beat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nas_cluster.core.decisions import DecisionSpec
from nas_cluster.core.seeds import stream
from nas_cluster.strategies.base import Gradient, Proposal, Proposer, State, Strategy, Vector

__all__ = ["Random"]


class Random(Strategy):
    """Every decision uniform; rewards change nothing."""

    @property
    def learns(self) -> bool:
        """False."""
        return False

    def proposer(self, spec: DecisionSpec) -> Proposer:
        """A proposer without weights."""
        return _Uniform()


class _Uniform:
    def propose(self, weights: Vector, state: State, spec: DecisionSpec, count: int, seed: int) -> Proposal:
        tokens = tuple(spec.random(stream(seed, index)) for index in range(count))
        return Proposal(tokens, (-spec.log_size,) * count, (spec.log_size,) * count)

    def gradient(
        self, weights: Vector, state: State, spec: DecisionSpec, proposal: Proposal, rewards: Sequence[float]
    ) -> Gradient:
        return Gradient(np.zeros(0, np.float32))
