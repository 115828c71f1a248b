"""Learning-rate schedules as closed forms of the time t, in epochs (fractions inside an epoch)."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from nas_cluster.core.component import Options

__all__ = ["Constant", "Cosine", "CosineRestarts", "Exponential", "Schedule", "Step"]


class Constant(Options):
    """The learning rate stays."""

    kind: Literal["constant"] = "constant"

    def rate(self, t: float, epochs: int, peak: float) -> float:
        """Learning rate at time t of `epochs`."""
        return peak


class Cosine(Options):
    """One half period from the peak to `minimum` (NASNet's single-period cosine)."""

    kind: Literal["cosine"] = "cosine"
    minimum: float = Field(0.0, ge=0)

    def rate(self, t: float, epochs: int, peak: float) -> float:
        """Learning rate at time t of `epochs`."""
        return self.minimum + 0.5 * (peak - self.minimum) * (1 + math.cos(math.pi * min(t / epochs, 1.0)))


class CosineRestarts(Options):
    """Half periods of `first`, `first * factor`, ... epochs, each from the peak to `minimum` (SGDR; ENAS)."""

    kind: Literal["cosine_restarts"] = "cosine_restarts"
    first: int = Field(10, ge=1)
    factor: int = Field(2, ge=1)
    minimum: float = Field(0.001, ge=0)

    def rate(self, t: float, epochs: int, peak: float) -> float:
        """Learning rate at time t; the number of epochs does not matter."""
        start, period = 0, self.first
        while t >= start + period:
            start, period = start + period, period * self.factor
        return self.minimum + 0.5 * (peak - self.minimum) * (1 + math.cos(math.pi * (t - start) / period))


class Step(Options):
    """Multiplied by `factor` at each milestone, given as shares of the budget."""

    kind: Literal["step"] = "step"
    milestones: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.5, 0.75)
    factor: float = Field(0.1, gt=0)

    def rate(self, t: float, epochs: int, peak: float) -> float:
        """Learning rate at time t of `epochs`."""
        return peak * self.factor ** sum(t / epochs >= milestone for milestone in self.milestones)


class Exponential(Options):
    """The peak for `start` epochs; from then on each epoch has `factor` times the rate of the one before it.

    Zaremba et al. 2014: 1/1.2 after 6 epochs. ENAS: 0.96 from epoch 15.
    """

    kind: Literal["exponential"] = "exponential"
    start: int = Field(15, ge=0)
    factor: float = Field(0.96, gt=0, le=1)

    def rate(self, t: float, epochs: int, peak: float) -> float:
        """Learning rate at time t, the same throughout an epoch; the number of epochs does not matter."""
        return peak * self.factor ** max(0, math.floor(t) - self.start + 1)


Schedule = Annotated[Constant | Cosine | CosineRestarts | Exponential | Step, Field(discriminator="kind")]
