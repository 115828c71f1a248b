"""What children reported while they trained: the page's section of learning curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from nas_cluster.report import charts
from nas_cluster.storage.record import RunRecord
from nas_cluster.storage.rows import ChildRow

__all__ = ["curves_section"]

_BEST = 10
_MOST = 300
"""Curves beyond which the eye sees only a colour."""


def curves_section(record: RunRecord, top: Sequence[ChildRow], objective: str) -> dict[str, Any] | None:
    """The curves of the best (`top`, best first) above those of the others; None when no child reported anything."""
    metric = record.curve_metric(objective)
    curves = {} if metric is None else record.curves(metric)
    if metric is None or not curves:
        return None
    names = [row.reported_by for row in top if row.reported_by in curves][:_BEST]
    others = [name for name in curves if name not in set(names)]
    room = _MOST - len(names)
    if len(others) > room:
        others = [others[place * len(others) // room] for place in range(room)]
    chart = charts.learning_curves_chart(
        {f"{rank}: {name}": curves[name] for rank, name in enumerate(names, start=1)},
        [curves[name] for name in others],
        metric,
    )
    shown = len(names) + len(others)
    of = f"{shown:,} of {len(curves):,}" if shown < len(curves) else f"{shown:,}"
    best = f"; the best {len(names)} in colour, by rank" if len(names) > 1 else ""
    plural = "" if len(curves) == 1 else "ren"
    return {"chart": Markup(chart), "note": f"{metric} as {of} child{plural} reported it while training{best}."}
