"""How many skip connections a policy is wanted to choose. Shapes: B children, N candidates of a decision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from nas_cluster.core.component import Options

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SkipPrior"]


class SkipPrior(Options):
    """How often skips are wanted (ENAS: Pham et al. 2018, section 3.2): the divergence from it is added to the loss."""

    rate: float = Field(0.4, gt=0, lt=1)
    """Wanted probability of each skip."""
    weight: float = Field(0.8, gt=0)

    def divergence(self, skips: Sequence[Tensor]) -> Tensor:
        """KL of the policy's skips from `rate`, in nats: summed over the candidates of a decision, mean over decisions
        and children, as the released code does. skips: probabilities (B, N), one for each decision."""
        import torch

        found = []
        for p_BN in skips:
            on_BN = torch.special.xlogy(p_BN, p_BN / self.rate)
            off_BN = torch.special.xlogy(1 - p_BN, (1 - p_BN) / (1 - self.rate))
            found.append((on_BN + off_BN).sum(1).mean())
        return torch.stack(found).mean()
