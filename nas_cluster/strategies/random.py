"""Random search: the comparator that every controller must beat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nas_cluster.core.decisions import DecisionSpec
from nas_cluster.strategies.base import Gradient, Proposal, Proposer, State, Strategy, Vector

__all__ = ["Random"]


class Random(Strategy):
    """Every decision as the space draws it: uniform, unless its random architectures have another distribution. Rewards
    change nothing."""

    @property
    def learns(self) -> bool:
        """False."""
        return False

    def proposer(self, spec: DecisionSpec) -> Proposer:
        """A proposer without weights."""
        return _Uniform()


class _Uniform:
    def propose(self, weights: Vector, state: State, spec: DecisionSpec, count: int, seed: int) -> Proposal:
        return Proposal.at_random(spec, count, seed)

    def gradient(
        self, weights: Vector, state: State, spec: DecisionSpec, proposal: Proposal, rewards: Sequence[float]
    ) -> Gradient:
        return Gradient(np.zeros(0, np.float32))
