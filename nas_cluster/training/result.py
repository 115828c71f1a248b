"""What a training from scratch has measured, whatever its children learn."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from nas_cluster.core import reporting
from nas_cluster.core.errors import Diverged

__all__ = ["TrainingResult"]


@dataclass
class TrainingResult:
    """Curves have one entry an epoch: `curve` of the validation metric that `metric` names, `losses` of the training.

    per_second: training examples by the wall time of the whole training, validation included; what an example is,
    `unit` says in the plural. about: what else is worth recording.
    """

    metric: str
    unit: str
    curve: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    per_second: float = 0.0
    path: str = "eager"
    notes: list[str] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)

    def check_loss(self, loss: float) -> None:
        """Take the mean training loss of the epoch that has just ended. Raises Diverged when it is not finite."""
        if not math.isfinite(loss):
            raise Diverged(f"the training loss is {loss} in epoch {len(self.losses) + 1}")
        self.losses.append(loss)

    def end_epoch(self, value: float) -> None:
        """Take the validation metric after that epoch, and report both."""
        self.curve.append(value)
        reporting.report(len(self.curve), **{self.metric: value, "loss": self.losses[-1]})

    def details(self) -> dict[str, Any]:
        """Plain data for the journal. The curves are in its reports."""
        rate = {f"{self.unit}_per_second": round(self.per_second, 1)}
        return {**rate, **self.about, "path": self.path, "notes": self.notes}
