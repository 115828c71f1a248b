"""The strategy's children against random ones of the same run: what a control arm is for."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from nas_cluster.report import charts
from nas_cluster.storage.rows import ChildRow

__all__ = ["compare_arms", "finding"]

_TOP = 5
_LEAST = 8
"""Children of each arm without which no test is made."""
_SIGNIFICANT = 0.05


def compare_arms(done: Sequence[ChildRow], config: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the page says of the two arms, or None when the run has no control arm or nothing was scored yet."""
    if not config.get("control") or not done:
        return None
    strategy = config["strategy"]
    name = "controller" if "controller" in strategy else "search"
    ordered = sorted(done, key=lambda row: row.child.number)
    search, control = ([row for row in ordered if row.arm == arm] for arm in ("search", "control"))
    end = ordered[-1].child.number + 1
    return {
        "title": f"{name.capitalize()} against random",
        "chart": Markup(charts.arms_chart({strategy["kind"]: _scored(search), "random": _scored(control)})),
        "rows": [_figures(strategy["kind"], search, end), _figures("random", control, end)],
        "finding": finding(_since(search, end / 2), _since(control, end / 2), name),
    }


def finding(search: Sequence[float], control: Sequence[float], name: str = "search") -> str:
    """One sentence: are the search's rewards larger than those of random children of the same time?

    A one-sided Mann-Whitney U test. scipy comes with scikit-learn.
    """
    if min(len(search), len(control)) < _LEAST:
        return (
            f"Too few children to tell: the second half of the run has {len(search)} of the {name} and {len(control)} "
            f"random ones, a test needs {_LEAST} of each."
        )
    from scipy.stats import mannwhitneyu

    p = float(mannwhitneyu(search, control, alternative="greater").pvalue)
    p = 1.0 if math.isnan(p) else p  # all rewards are equal
    figures = (
        f"medians {statistics.median(search):.4f} of {len(search)} and {statistics.median(control):.4f} of "
        f"{len(control)} children; Mann-Whitney U, one-sided, p {f'= {p:.2g}' if p >= 1e-4 else '< 0.0001'}"
    )
    if p < _SIGNIFICANT:
        return (
            f"In the second half of the run the {name}'s children have larger rewards than random ones ({figures}, "
            "which takes children as independent and so says a little too much)."
        )
    return (
        f"That the {name}'s children do better than random ones is not shown by the second half of the run ({figures})."
    )


def _figures(word: str, rows: Sequence[ChildRow], end: int) -> dict[str, str]:
    """One line of the table; rows in the order of their numbers."""
    last = _since(rows, 3 * end / 4)
    best: dict[str, float] = {}  # of each architecture, the first child's
    for row in rows:
        if row.ok and row.reward is not None:
            best.setdefault(row.child.key, row.reward)
    top = sorted(best.values(), reverse=True)[:_TOP]
    return {
        "arm": word,
        "children": f"{len(rows):,}",
        "last_quarter": f"{statistics.fmean(last):.4f}" if last else "-",
        "best": f"{top[0]:.4f}" if top else "-",
        "top": f"{statistics.fmean(top):.4f}" if len(top) == _TOP else "-",
    }


def _scored(rows: Sequence[ChildRow]) -> list[tuple[int, float]]:
    return [(row.child.number, row.reward or 0.0) for row in rows]


def _since(rows: Sequence[ChildRow], number: float) -> list[float]:
    """Rewards of the children from this number on."""
    return [reward for n, reward in _scored(rows) if n >= number]
