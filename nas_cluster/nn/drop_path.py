"""ScheduledDropPath (Zoph et al. 2018, A.5): cells drop whole paths, and more of them as training goes on."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["drop_path", "keep_probabilities"]


def keep_probabilities(progress: Tensor, cells: int, final: float) -> Tensor:
    """The probability of keeping a path in each cell, (cells): 1 - progress * (index + 1) / cells * (1 - final).

    progress: share of the training that is done, 0 to 1: a tensor without dimensions, so that a captured CUDA graph
    reads it.

    >>> keep_probabilities(torch.tensor(0.5), cells=4, final=0.6).tolist()[-1]
    0.800000011920929
    """
    depth = torch.arange(1, cells + 1, device=progress.device, dtype=progress.dtype) / cells
    return 1 - progress.clamp(0, 1) * depth * (1 - final)


def drop_path(x: Tensor, keep: Tensor) -> Tensor:
    """Zero whole examples of x (N, C, H, W) with probability 1 - keep, and divide the others by keep. In place."""
    kept = torch.rand(len(x), 1, 1, 1, device=x.device, dtype=keep.dtype).add_(keep).floor_()
    return x.mul_((kept / keep).to(x.dtype))
