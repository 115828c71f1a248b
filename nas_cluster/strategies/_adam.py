"""Adam on a flat slice (Kingma & Ba 2015).

Element-wise, so cutting the vector into shards does not change a bit of the result. Numpy, because constructing
`torch.optim.Adam` imports torch._dynamo: 1.6 CPU seconds and 75 MiB in each parameter-server process.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from nas_cluster.core.component import Options

__all__ = ["Adam", "AdamState"]


@dataclass
class AdamState:
    """First and second moments of a slice, float32, and the number of updates applied."""

    first: NDArray[np.float32]
    second: NDArray[np.float32]
    updates: int = 0


class Adam(Options):
    """Settings of Adam, torch's defaults except where a strategy says otherwise."""

    learning_rate: float = Field(1e-3, gt=0)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.999, ge=0, lt=1)
    epsilon: float = Field(1e-8, gt=0)

    def init(self, size: int) -> AdamState:
        """State for a slice of `size` parameters."""
        return AdamState(np.zeros(size, np.float32), np.zeros(size, np.float32))

    def apply(self, state: AdamState, weights: NDArray[np.float32], gradient: NDArray[np.float32]) -> None:
        """One update of `weights` and `state`, in place."""
        state.updates += 1
        state.first += np.float32(1 - self.beta1) * (gradient - state.first)
        state.second += np.float32(1 - self.beta2) * (gradient * gradient - state.second)
        step = np.float32(self.learning_rate / (1 - self.beta1**state.updates))
        scale = np.float32(1 / np.sqrt(1 - self.beta2**state.updates))
        weights -= step * state.first / (np.sqrt(state.second) * scale + np.float32(self.epsilon))
