"""REINFORCE with a moving-average baseline (Williams 1992; Zoph & Le 2017, section 3.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas_cluster.strategies._minibatch import Minibatch
from nas_cluster.strategies._policy_gradient import PolicyGradient

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Reinforce"]


class Reinforce(PolicyGradient):
    """Raise the log-probability of each child in proportion to how far its reward is above the baseline."""

    def loss(self, batch: Minibatch) -> Tensor:
        """-(1/m) sum_k (R_k - b) log P(tokens_k) - entropy_weight * mean entropy."""
        policy = -((batch.rewards_B - batch.baseline) * batch.log_probs_BT.sum(1)).mean()
        return policy - self.entropy_weight * batch.entropies_B.mean()
