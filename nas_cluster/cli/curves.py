"""Learning curves as text: `top --curves`."""

from __future__ import annotations

from collections.abc import Sequence

from nas_cluster.config.rewards import objective_name
from nas_cluster.core.metrics import figure
from nas_cluster.storage.record import RunRecord

__all__ = ["curves_text", "sparkline"]

_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 40


def curves_text(record: RunRecord, count: int) -> str:
    """How the best distinct architectures became what they are, best first: a line each, all on one scale."""
    rows = record.top(count)
    objective = objective_name(record.config)
    metric = record.curve_metric(objective)
    if metric is None or not rows:
        return "no child has reported anything while it trained\n"
    curves = []
    for rank, row in enumerate(rows, start=1):
        reports = record.reports(row.reported_by)
        values = [report.metrics[metric] for report in reports if metric in report.metrics]
        curves.append((rank, str(row.child.child_id), values))
    known = [value for _, _, values in curves for value in values]
    if not known:
        return f"none of these children has reported {metric!r} while it trained\n"
    low, high = min(known), max(known)
    width = max(len(name) for _, name, _ in curves)
    lines = [] if metric == objective else [f"{objective} was not reported; {metric} instead"]
    lines.append(f"{metric}, from {figure(low)} (▁) to {figure(high)} (█)")
    for rank, name, values in curves:
        ends = f"{figure(values[0])} → {figure(values[-1])}, {len(values)} steps" if values else "nothing reported"
        lines.append(f"{rank:>4}  {name:<{width}}  {sparkline(values, low, high):<{_WIDTH}}  {ends}")
    return "\n".join(line.rstrip() for line in lines) + "\n"


def sparkline(values: Sequence[float], low: float, high: float) -> str:
    """A bar for each value, or for evenly spread ones of many; the first and the last are always there."""
    if len(values) > _WIDTH:
        values = [values[round(place * (len(values) - 1) / (_WIDTH - 1))] for place in range(_WIDTH)]
    span = high - low or 1.0
    return "".join(_BARS[round((value - low) / span * (len(_BARS) - 1))] for value in values)
