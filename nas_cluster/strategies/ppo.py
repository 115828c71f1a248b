"""Proximal policy optimisation (Schulman et al. 2017, equation 7), as NASNet trains its controller (Zoph et al. 2018,
appendix A.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from nas_cluster.controllers import Controller
from nas_cluster.core.component import component_field
from nas_cluster.strategies._minibatch import Minibatch
from nas_cluster.strategies._policy_gradient import PolicyGradient

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["PPO"]

_LARGEST_LOG_RATIO = 20.0
"""Keeps the ratio of a child that has become e^20 times likelier finite; the clipped term does not bound it when the
child was worse than the baseline."""


class PPO(PolicyGradient):
    """Several gradients per minibatch; a child whose probability has moved far enough pulls no further."""

    controller: Annotated[Controller, *component_field(Controller, "strategy.controller")] = {  # type: ignore[assignment]
        "kind": "lstm",
        "layers": 1,
        "hidden_size": 100,
        "init_range": 0.1,
    }
    learning_rate: float = Field(0.00035, gt=0)
    entropy_weight: float = Field(0.00001, ge=0)
    clip: float = Field(0.2, gt=0, lt=1)
    """How far a probability ratio may move from 1 to a child's advantage. Not given by NASNet."""
    ratio: Literal["sequence", "token"] = "sequence"
    """Of the whole architecture's probability, or of each decision's. Not given by NASNet."""
    epochs: int = Field(4, ge=1)
    """Gradients taken from one minibatch. Not given by NASNet."""

    @property
    def learning_epochs(self) -> int:
        """`epochs`."""
        return self.epochs

    @property
    def wants_step_log_probs(self) -> bool:
        """For ratios by token."""
        return self.ratio == "token"

    def loss(self, batch: Minibatch) -> Tensor:
        """-(1/m) sum_k sum_t min(r A, clip(r, 1 - clip, 1 + clip) A) - entropy_weight * mean entropy.

        r: probability over the probability when sampled, A: reward minus baseline. t runs over decisions, or with
        `ratio: sequence` over the sequence as one. At the weights that sampled the children its gradient is that of
        REINFORCE: there r is 1 and its gradient that of log P.
        """
        ratios_BT, advantages_B1 = self._ratios(batch), (batch.rewards_B - batch.baseline)[:, None]
        clipped_BT = ratios_BT.clamp(1 - self.clip, 1 + self.clip)
        surrogate_B = (ratios_BT * advantages_B1).minimum(clipped_BT * advantages_B1).sum(1)
        return -surrogate_B.mean() - self.entropy_weight * batch.entropies_B.mean()

    def watch(self, batch: Minibatch) -> dict[str, float]:
        """clipped: share of the ratios beyond the clip, whether or not that held a gradient back."""
        return {"clipped": float(((self._ratios(batch) - 1).abs() > self.clip).float().mean())}

    def _ratios(self, batch: Minibatch) -> Tensor:
        """(B, T) or, for sequences, (B, 1)."""
        if self.ratio == "sequence":
            log_ratios = (batch.log_probs_BT.sum(1) - batch.sampled_log_probs_B)[:, None]
        else:
            assert batch.sampled_log_probs_BT is not None
            log_ratios = batch.log_probs_BT - batch.sampled_log_probs_BT
        return log_ratios.clamp(max=_LARGEST_LOG_RATIO).exp()
