"""One minibatch as a policy gradient sees it. Shapes: B children, T decisions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Minibatch"]


@dataclass(frozen=True)
class Minibatch:
    """What a loss is computed from.

    log_probs_BT: of the children's decisions under the weights at hand, with gradient. sampled_log_probs_BT, _B: under
    the weights that sampled them; by decision only where the strategy asks for it.
    baseline: from the rewards before this minibatch.
    """

    log_probs_BT: Tensor
    entropies_B: Tensor
    rewards_B: Tensor
    baseline: float
    sampled_log_probs_B: Tensor
    sampled_log_probs_BT: Tensor | None = None
