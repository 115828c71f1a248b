"""What estimators of language models have in common: the metric is a perplexity, and two rewards are made of it."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from nas_cluster.core.component import Options
from nas_cluster.core.task import LanguageTask, Task

__all__ = ["PerplexityReward"]


class PerplexityReward(Options):
    """Settings of the reward of a perplexity."""

    understands: ClassVar[tuple[type[Task], ...]] = (LanguageTask,)
    metric_name: ClassVar[str] = "perplexity"

    reward: Literal["inverse_square_perplexity", "inverse_perplexity"] = "inverse_square_perplexity"
    """reward_scale / perplexity^2 (Zoph & Le 2017, section 4.2), or reward_scale / perplexity (ENAS)."""
    reward_scale: float = Field(80.0, gt=0)
    """The papers' constant c."""

    def reward_of(self, metric: float) -> float:
        """The reward of a perplexity."""
        return self.reward_scale / (metric**2 if self.reward == "inverse_square_perplexity" else metric)
