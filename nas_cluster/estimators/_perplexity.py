"""What estimators of language models have in common: their metric is a perplexity, the less the better."""

from __future__ import annotations

from typing import ClassVar

from nas_cluster.core.component import Options
from nas_cluster.core.reward import Direction, Reward
from nas_cluster.core.task import LanguageTask, Task

__all__ = ["PerplexityMetric"]


class PerplexityMetric(Options):
    """What their metric is, and its reward: c / perplexity^2 (Zoph & Le 2017, section 4.2)."""

    understands: ClassVar[tuple[type[Task], ...]] = (LanguageTask,)
    metric_name: ClassVar[str] = "perplexity"
    metric_direction: ClassVar[Direction] = "min"
    default_reward: ClassVar[Reward] = Reward(kind="inverse_square")
