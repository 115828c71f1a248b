"""Whether the search's score orders architectures as training them alone does (the config's `correlate`)."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from nas_cluster.config import Correlate
from nas_cluster.report import charts
from nas_cluster.storage.rows import TrainingRow

__all__ = ["Correlation", "correlation_of", "correlation_section"]

_SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Correlation:
    """Metrics of the same architectures, scored and trained alone; rank correlations of the rewards that they gave.

    p: one-sided, of Spearman's coefficient, that it is not above zero.
    """

    scores: tuple[float, ...]
    alone: tuple[float, ...]
    spearman: float
    kendall: float
    p: float

    @property
    def significant(self) -> bool:
        """Whether chance hardly orders so many architectures so well."""
        return self.p < _SIGNIFICANT

    def __str__(self) -> str:
        p = f"= {self.p:.2g}" if self.p >= 1e-4 else "< 0.0001"
        figures = (
            f"{len(self.scores)} architectures, Spearman {self.spearman:.2f}, Kendall {self.kendall:.2f}, "
            f"one-sided p {p}; trained alone {statistics.fmean(self.alone):.4f} on average, "
            f"standard deviation {statistics.stdev(self.alone):.4f}"
        )
        if self.significant:
            return f"Scores order architectures as training alone does: {figures}."
        return f"WARNING: that scores order architectures as training alone does is not shown: {figures}."


def correlation_of(rows: Sequence[TrainingRow]) -> Correlation | None:
    """From a run's trainings; None before four architectures are trained alone. Failed ones are left out.

    scipy comes with scikit-learn.
    """
    scored = {row.source: row for row in rows if row.stage == Correlate.SCORES and row.reward is not None}
    alone = [row for row in rows if row.stage == Correlate.ALONE and row.reward is not None and row.source in scored]
    if len(alone) < 4:
        return None
    from scipy.stats import kendalltau, spearmanr

    pairs = [(scored[row.source].reward or 0.0, row.reward or 0.0) for row in alone]
    spearman, kendall, p = 0.0, 0.0, 1.0
    if all(len(set(side)) > 1 for side in zip(*pairs, strict=True)):  # else it orders nothing
        spearman, p = map(float, spearmanr(*zip(*pairs, strict=True), alternative="greater"))
        kendall = float(kendalltau(*zip(*pairs, strict=True)).statistic)
    metrics = [(_metric(scored[row.source]), _metric(row)) for row in alone]
    scores, trained = zip(*metrics, strict=True)
    return Correlation(scores, trained, spearman, kendall, p)


def correlation_section(rows: Sequence[TrainingRow], config: Mapping[str, Any], metric: str) -> dict[str, Any] | None:
    """What the page says of it, with a plot; None when the run was not asked or is not there yet."""
    found = correlation_of(rows) if config.get("correlate") else None
    if found is None:
        return None
    chart = Markup(charts.correlation_chart(found.scores, found.alone, metric))
    return {"chart": chart, "finding": str(found), "significant": found.significant}


def _metric(row: TrainingRow) -> float:
    assert row.metric is not None
    return row.metric
