"""One self-contained HTML page about a run, made from its record alone."""

from __future__ import annotations

import json
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from nas_cluster.config.loading import write_yaml
from nas_cluster.config.rewards import objective_name
from nas_cluster.core.component import build_component
from nas_cluster.core.errors import ConfigError
from nas_cluster.core.evaluation import CAUSES
from nas_cluster.core.metrics import figure, further_metrics
from nas_cluster.report import charts
from nas_cluster.report.arms import compare_arms
from nas_cluster.report.correlation import correlation_section
from nas_cluster.report.curves import curves_section
from nas_cluster.report.drawing import svg_of, width_of
from nas_cluster.report.stages import stage_tables
from nas_cluster.spaces import SearchSpace
from nas_cluster.storage.record import RunRecord
from nas_cluster.storage.rows import ChildRow

__all__ = ["write_report"]

_DRAWN = 4
_WIDE = 420.0
"""Pixels beyond which pictures stand two in a row instead of four."""
_LISTED = 10
_WINDOWS = 20
_GROUPS = 6
_SCALARS = ("entropy", "baseline", "loss", "gradient_norm", "clipped", "population_mean")


def write_report(record: RunRecord, output: Path) -> Path:
    """Write the page of a running, empty, failed or finished run; the path written."""
    environment = Environment(
        loader=PackageLoader("nas_cluster.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = environment.get_template("page.html.j2").render(_content(record))
    output.write_text(page, encoding="utf-8")
    return output


def _content(record: RunRecord) -> dict[str, Any]:
    children = record.children()
    done = sorted((row for row in children if row.done), key=lambda row: row.finished_at or 0)
    space, space_problem = _space(record)
    top = record.top(_LISTED)
    objective = objective_name(record.config)
    further = further_metrics([row.evaluation.metrics for row in top if row.evaluation], objective)
    return {
        "name": record.name,
        "run_id": record.run_id[:12],
        "directory": str(record.directory),
        "made_at": time.strftime("%Y-%m-%d %H:%M"),
        "state": record.state(),
        "asked": _asked(record),
        "tiles": _tiles(record, done, top, objective),
        "config": write_yaml(record.config),
        "reward_chart": _reward_chart(done),
        "arms": compare_arms(done, record.config),
        "controller_charts": _controller_charts(record),
        "gradients": _gradients(record),
        "phase_charts": _phase_charts(record),
        "probability_charts": _probability_charts(space, [r for r in done if r.arm == "search"]) if space else [],
        "space_problem": space_problem,
        "drawn": [_drawn(rank, row, space) for rank, row in enumerate(top[:_DRAWN], start=1)],
        "listed": [_listed(rank, row, space, further) for rank, row in enumerate(top, start=1)],
        "objective": objective,
        "further": further,
        "curves": curves_section(record, top, objective),
        "failures": _failures(done),
        "utilisation_chart": _utilisation(done, record.config),
        "durations_chart": _durations(done),
        "events": _events(record),
        "stages": stage_tables(record.trainings()),
        "correlation": correlation_section(record.trainings(), record.config, objective),
    }


def _asked(record: RunRecord) -> str:
    """The job in one sentence."""
    c = record.config
    t = c["topology"]
    data = "" if c["dataset"] is None else f" on {c['dataset']['kind']}"
    return (
        f"{c['strategy']['kind']} over {c['space']['kind']}, children scored by {c['estimator']['kind']}{data}; "
        f"{t['parameter_shards']} parameter-server shards, "
        f"{t['controller_replicas']} controller replicas, {t['children_per_replica']} children each, {c['mode']}"
    )


def _tiles(
    record: RunRecord, done: Sequence[ChildRow], top: Sequence[ChildRow], objective: str
) -> list[tuple[str, str, str]]:
    """(word, figure, remark) of the headline."""
    counts, active = record.counts(), record.active_seconds()
    most = record.config["budget"].get("max_children")
    best = top[0] if top else None
    tiles = [("children", f"{counts['done']:,}", f"of {most:,}" if most else "done")]
    if best is not None and best.metric is not None:
        tiles.append((f"best {objective}", figure(best.metric), f"child {best.child.child_id}"))
        tiles.append(("best reward", figure(best.reward), f"from the {objective}, as configured"))
    rate = 3600 * counts["done"] / active if active else 0
    tiles.append(("children per hour", f"{rate:,.0f}", f"{active / 60:.1f} minutes of running"))
    tiles.append(("failed", f"{counts['failed']:,}", f"{100 * counts['failed'] / max(1, counts['done']):.1f} %"))
    tiles.append(("from the cache", f"{counts['cached']:,}", "answered without training"))
    tiles.append(("sessions", f"{len(record.sessions())}", "lifetimes of the driver"))
    return tiles


def _reward_chart(done: Sequence[ChildRow]) -> Markup | None:
    if not done:
        return None
    return Markup(charts.reward_chart([row.reward or 0.0 for row in done], [not row.ok for row in done]))


def _controller_charts(record: RunRecord) -> Markup | None:
    batches = [b for b in record.batches() if b.applied_at is not None and b.verdict != "void"]
    batches.sort(key=lambda b: b.applied_at or 0)
    series: dict[str, list[float]] = {}
    for name in _SCALARS:
        values = [b.scalars[name] for b in batches if name in b.scalars]
        if values and len(values) == len(batches):
            series[name] = values
    if any(b.staleness for b in batches):
        series["staleness"] = [float(b.staleness or 0) for b in batches]
    return Markup(charts.controller_chart(range(1, len(batches) + 1), dict(series))) if series else None


def _phase_charts(record: RunRecord) -> Markup | None:
    """Loss and time of the phases in which the workers trained what children share."""
    done = [row for row in record.phases() if row.result is not None]
    if not done:
        return None
    series = {
        "loss": [row.result.loss for row in done if row.result],
        "seconds": [row.result.seconds for row in done if row.result],
    }
    return Markup(charts.controller_chart([row.phase + 1 for row in done], dict(series), over="phase"))


def _gradients(record: RunRecord) -> str:
    """What became of the gradients, in one line."""
    verdicts: Counter[str] = Counter()
    for batch in record.batches():
        if batch.verdict:
            verdicts[batch.verdict] += batch.learning_epochs
    stale = [b.staleness for b in record.batches() if b.staleness is not None]
    parts = [f"{count:,} {verdict.replace('_', '-')}" for verdict, count in verdicts.most_common()]
    worst = f"; staleness at most {max(stale)} updates, {statistics.fmean(stale):.1f} on average" if stale else ""
    return "Gradients: " + ", ".join(parts) + worst + "." if parts else ""


def _probability_charts(space: SearchSpace[Any], done: Sequence[ChildRow]) -> list[Markup]:
    """For each group of choices, what share of the sampled decisions took each option, window by window."""
    windows = min(_WINDOWS, len(done) // 4)
    if windows < 2:
        return []
    ordered = sorted(done, key=lambda row: row.child.number)
    parts = np.array_split(np.arange(len(ordered)), windows)
    counts: dict[str, np.ndarray[Any, Any]] = {}
    labels: dict[str, tuple[str, ...]] = {}
    for w, part in enumerate(parts):
        for i in part:
            child = ordered[i].child
            for decision, token in zip(space.at(child.first_number).decisions(), child.tokens, strict=True):
                if decision.head == "choice" and decision.options > 1:
                    counts.setdefault(decision.group, np.zeros((windows, decision.options)))[w, token] += 1
                    labels[decision.group] = decision.labels or tuple(map(str, range(decision.options)))
    ends = [int(part[-1]) + 1 for part in parts]
    return [
        Markup(charts.probability_chart(group, labels[group], table / table.sum(1, keepdims=True), ends))
        for group, table in list(counts.items())[:_GROUPS]
    ]


def _listed(rank: int, row: ChildRow, space: SearchSpace[Any] | None, further: Sequence[str] = ()) -> dict[str, Any]:
    assert row.evaluation is not None
    e = row.evaluation
    return {
        "rank": rank,
        "child": f"{row.child.child_id}{' (random)' if row.arm == 'control' else ''}",
        "metric": figure(row.metric),
        "reward": figure(row.reward),
        "parameters": figure(e.parameters),
        "others": [figure(e.metrics.get(name)) for name in further],
        "seconds": f"{e.seconds:.1f}",
        "summary": space.summary(space.parse(row.child.architecture)) if space else row.child.key,
    }


def _drawn(rank: int, row: ChildRow, space: SearchSpace[Any] | None) -> dict[str, Any]:
    drawings = space.draw(space.parse(row.child.architecture)) if space else []
    pictures = [(d.title, Markup(svg_of(d))) for d in drawings]
    return {
        "wide": any(width_of(d) > _WIDE for d in drawings),
        **_listed(rank, row, space),
        "pictures": pictures,
        "json": json.dumps(row.child.architecture, indent=1),
    }


def _failures(done: Sequence[ChildRow]) -> list[dict[str, Any]]:
    by_cause: dict[str, list[ChildRow]] = defaultdict(list)
    for row in done:
        if row.evaluation is not None and row.evaluation.cause:
            by_cause[row.evaluation.cause].append(row)
    return [
        {
            "cause": cause,
            "meaning": CAUSES.get(cause, ""),
            "count": len(rows),
            "example": rows[0].evaluation.message if rows[0].evaluation else "",
            "child": str(rows[0].child.child_id),
        }
        for cause, rows in sorted(by_cause.items(), key=lambda item: -len(item[1]))
    ]


def _utilisation(done: Sequence[ChildRow], config: dict[str, Any]) -> Markup | None:
    ran = [
        (row.started_at, row.finished_at) for row in done if row.started_at is not None and row.finished_at is not None
    ]
    if len(ran) < 2:
        return None
    starts, ends = [a for a, _ in ran], [b for _, b in ran]
    steps = sorted([(t, 1) for t in starts] + [(t, -1) for t in ends])
    peak, busy = 0, 0
    for _, change in steps:
        busy += change
        peak = max(peak, busy)
    return Markup(charts.utilisation_chart(starts, ends, config["topology"].get("slots") or peak))


def _durations(done: Sequence[ChildRow]) -> Markup | None:
    seconds = [row.evaluation.seconds for row in done if row.evaluation is not None and row.cached_from is None]
    return Markup(charts.durations_chart(seconds)) if len(seconds) > 4 else None


def _events(record: RunRecord) -> list[dict[str, str]]:
    """What happened, oldest first; a crowd of one kind is counted."""
    events = record.events()
    crowd = {kind for kind, n in Counter(e.kind for e in events).items() if n > 12}
    shown = [
        {"time": _clock(e.time), "kind": e.kind, "detail": ", ".join(f"{k} {v}" for k, v in e.detail.items())[:160]}
        for e in events
        if e.kind not in crowd
    ]
    shown += [
        {"time": "", "kind": kind, "detail": f"{sum(e.kind == kind for e in events)} times"} for kind in sorted(crowd)
    ]
    sessions = [
        {
            "time": _clock(s.started_at),
            "kind": f"session {s.term}",
            "detail": f"on {s.machine}; {s.ended or 'lost or running'}",
        }
        for s in record.sessions()
    ]
    return sorted(shown + sessions, key=lambda event: event["time"])


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _space(record: RunRecord) -> tuple[SearchSpace[Any] | None, str]:
    """The run's space, or why its architectures cannot be drawn here."""
    try:
        return build_component(SearchSpace, record.config["space"], where="space"), ""  # type: ignore[type-abstract]
    except ConfigError as error:
        return None, str(error)
