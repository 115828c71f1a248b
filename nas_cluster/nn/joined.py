"""A 1x1 convolution of maps that the caller chooses anew in every call."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["JoinedConvNorm"]


class JoinedConvNorm(nn.Module):
    """The module computes a 1x1 convolution over the concatenation of any of the given maps, and a batch norm: C*F
    weights per map, 2F of the norm.

    Every map has a matrix of its own, so that two choices of maps share the matrices of those they have in common, and
    the others get no gradient (Pham et al. 2018, appendix B; the released code's `w[indices]`). `initialise_he`
    draws them.

    >>> join = JoinedConvNorm(maps=[0, 1, 4], channels=2, filters=5)
    >>> maps_0_and_4 = torch.ones(1, 4, 8, 8)
    >>> join(maps_0_and_4, [0, 4]).shape
    torch.Size([1, 5, 8, 8])
    """

    def __init__(self, maps: Iterable[int], channels: int, filters: int) -> None:
        super().__init__()
        self.weights = nn.ParameterDict({str(m): nn.Parameter(torch.empty(filters, channels, 1, 1)) for m in maps})
        self.norm = nn.BatchNorm2d(filters)

    def forward(self, x: Tensor, maps: Sequence[int]) -> Tensor:
        """Map (N, C * len(maps), H, W), the maps side by side in this order, to (N, F, H, W)."""
        weights = [self.weights[str(m)] for m in maps]
        y: Tensor = self.norm(F.conv2d(x, weights[0] if len(weights) == 1 else torch.cat(weights, 1)))
        return y
