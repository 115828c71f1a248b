"""Cross entropy of a linear layer over a large vocabulary, its gradient formed in the forward pass.

Shapes: N rows (the T*B tokens of a window), E features, V words. The N x V logits are made, turned into their own
gradient and used up a few rows at a time, so that the largest matrix of the step never goes to memory and back.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

__all__ = ["FUSED_FROM", "fused_softmax_loss", "softmax_loss"]

FUSED_FROM = 1000
"""Smallest vocabulary for which the fused loss is the faster one (tests/benchmarks/language_model.py softmax)."""
_CHUNK = 1 << 22
"""Logits in memory at once, by number."""


def softmax_loss(features_TBE: Tensor, decoder: nn.Linear, targets_TB: Tensor) -> Tensor:
    """Mean cross entropy of `decoder(features)` against the targets; fused where that is faster."""
    features_NE, targets_N = features_TBE.flatten(0, 1), targets_TB.flatten()
    if decoder.out_features < FUSED_FROM:
        return F.cross_entropy(decoder(features_NE), targets_N)
    return fused_softmax_loss(features_NE, decoder.weight, decoder.bias, targets_N)


def fused_softmax_loss(features_NE: Tensor, weight_VE: Tensor, bias_V: Tensor | None, targets_N: Tensor) -> Tensor:
    """What `F.cross_entropy(F.linear(features, weight, bias), targets)` gives, once differentiable."""
    loss: Tensor = _Fused.apply(features_NE, weight_VE, bias_V, targets_N)
    return loss


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features_NE: Tensor, weight_VE: Tensor, bias_V: Tensor | None, targets_N: Tensor) -> Tensor:
        N, V = len(features_NE), len(weight_VE)
        rows = min(N, max(1, _CHUNK // V))
        buffer = features_NE.new_empty(rows, V)
        d_features_NE, d_weight_VE = torch.empty_like(features_NE), torch.zeros_like(weight_VE)
        d_bias_V = None if bias_V is None else torch.zeros_like(bias_V)
        loss = features_NE.new_zeros(())
        for start in range(0, N, rows):
            x_nE, target_n1 = features_NE[start : start + rows], targets_N[start : start + rows, None]
            p_nV = torch.mm(x_nE, weight_VE.t(), out=buffer[: len(x_nE)])
            if bias_V is not None:
                p_nV += bias_V
            p_nV -= p_nV.amax(1, keepdim=True)
            loss -= p_nV.gather(1, target_n1).sum()
            sum_n1 = p_nV.exp_().sum(1, keepdim=True)
            loss += sum_n1.log().sum()
            p_nV /= sum_n1 * N
            p_nV.scatter_add_(1, target_n1, p_nV.new_full((len(x_nE), 1), -1 / N))  # the gradient of the logits
            torch.mm(p_nV, weight_VE, out=d_features_NE[start : start + rows])
            d_weight_VE.addmm_(p_nV.t(), x_nE)
            if d_bias_V is not None:
                d_bias_V += p_nV.sum(0)
        ctx.gradients = (d_features_NE, d_weight_VE, d_bias_V)
        return loss / N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        gradients = ctx.gradients
        del ctx.gradients  # they are scaled in place, so this can be done once
        return (*(None if gradient is None else gradient.mul_(scale) for gradient in gradients), None)
