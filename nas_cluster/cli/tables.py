"""What `top`, `status` and `plan` say, as text for people and as plain data for machines."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nas_cluster.cli.progress import duration
from nas_cluster.cluster.session.stages import StageResult
from nas_cluster.config.rewards import objective_name
from nas_cluster.core.component import build_component
from nas_cluster.core.errors import ConfigError
from nas_cluster.core.metrics import figure, further_metrics
from nas_cluster.spaces import SearchSpace
from nas_cluster.storage.record import RunRecord
from nas_cluster.storage.rows import ChildRow, TrainingRow

if TYPE_CHECKING:
    from nas_cluster.cluster.operations.jobs import Job

__all__ = [
    "fields_text",
    "findings_text",
    "job_json",
    "job_text",
    "jobs_text",
    "mean_and_spread",
    "plan_text",
    "runs_json",
    "runs_text",
    "stage_text",
    "status_json",
    "status_text",
    "top_json",
    "top_text",
    "training_line",
]


def top_json(record: RunRecord, count: int, *, curves: bool = False) -> list[dict[str, Any]]:
    """The best distinct architectures, best first; with `curves`, what each reported while it trained."""
    objective = objective_name(record.config)
    found = []
    for rank, row in enumerate(record.top(count), start=1):
        data = _child_json(rank, row, objective)
        if curves:
            data["reports"] = [{"step": one.step, "metrics": one.metrics} for one in record.reports(row.reported_by)]
        found.append(data)
    return found


def top_text(record: RunRecord, count: int) -> str:
    """The same as a table."""
    space = _space(record)
    objective = objective_name(record.config)
    top = record.top(count)
    more = further_metrics([row.evaluation.metrics for row in top if row.evaluation], objective)
    rows = []
    for rank, row in enumerate(top, start=1):
        assert row.evaluation is not None
        e = row.evaluation
        summary = space.summary(space.parse(row.child.architecture)) if space else row.child.key
        counted = [figure(row.metric), figure(row.reward), figure(e.parameters), f"{e.seconds:.1f}"]
        others = [figure(e.metrics.get(name)) for name in more]
        rows.append([str(rank), *counted, *others, str(row.child.child_id), summary])
    if not rows:
        return _nothing_scored(record)
    head = ["rank", objective, "reward", "parameters", "seconds", *more, "child", "architecture"]
    return _table(head, rows, left=2)


def _nothing_scored(record: RunRecord) -> str:
    """Why there is no best child."""
    failures = record.failures()
    if not failures:
        return "no child has been scored yet\n"
    return f"all {sum(one.count for one in failures)} children failed ({failures[0].cause}: {failures[0].line})\n"


def status_json(record: RunRecord) -> dict[str, Any]:
    """How a run stands."""
    sessions = record.sessions()
    best = record.top(1)
    events = record.events()
    state = record.state()
    return {
        "name": record.name,
        "run_id": record.run_id,
        "state": state,
        "resumable": state not in ("done", "running"),
        "children": record.counts(),
        "max_children": record.config["budget"]["max_children"],
        "active_seconds": record.active_seconds(),
        "sessions": len(sessions),
        "best": _child_json(1, best[0], objective_name(record.config)) if best else None,
        "last_event": {"kind": events[-1].kind, **events[-1].detail} if events else None,
    }


def status_text(record: RunRecord) -> str:
    """The same for people."""
    data = status_json(record)
    counts = data["children"]
    failures = record.failures()
    most = "" if data["max_children"] is None else f" of {data['max_children']}"
    lines = [
        ("run", f"{data['name']} ({record.directory})"),
        ("state", data["state"] + (f" · continue: nas-cluster resume {record.directory}" if data["resumable"] else "")),
        ("children", f"{counts['done']}{most} done, {counts['failed']} failed, {counts['cached']} from the cache"),
        ("time", f"{duration(data['active_seconds'])} in {data['sessions']} session(s)"),
    ]
    if failures:
        causes = [f"{one.cause} {one.count}" for one in failures]
        causes[0] += f" ({failures[0].line})"
        lines.append(("failures", ", ".join(causes)))
    if data["best"]:
        best = data["best"]
        chance = ", sampled at random" if best["arm"] == "control" else ""
        metric = f"{best['objective']} {figure(record.top(1)[0].metric)}"
        line = f"reward {best['reward']:.4f}, {metric}, child {best['child_id']}{chance}"
        lines.append(("best", line))
    if data["last_event"]:
        lines.append(("last event", data["last_event"]["kind"]))
    return "".join(f"{name:<11} {value}\n" for name, value in lines)


def runs_json(records: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """The runs in a folder."""
    return [
        {
            "name": record.name,
            "run_dir": str(record.directory),
            "state": record.state(),
            "children": record.counts()["done"],
            "max_children": record.config["budget"]["max_children"],
            "best_reward": best[0].reward if (best := record.top(1)) else None,
        }
        for record in records
    ]


def runs_text(records: Sequence[RunRecord]) -> str:
    """The same as a table."""
    rows = []
    for run in runs_json(records):
        most = "" if run["max_children"] is None else f"/{run['max_children']}"
        best = "-" if run["best_reward"] is None else f"{run['best_reward']:.4f}"
        rows.append([f"{run['children']}{most}", best, run["state"], run["run_dir"]])
    return _table(["children", "best reward", "state", "run"], rows, left=2) if rows else "no runs\n"


def job_json(job: Job) -> dict[str, Any]:
    """A job of a cluster."""
    return {
        "name": job.run,
        "job": job.job_id,
        "status": job.status,
        "exit_code": job.code if job.ended else None,
        "resumable": job.resumable,
        "started_at": job.started_at,
        "ended_at": job.ended_at,
        "storage_path": job.metadata.get("storage_path"),
    }


def job_text(job: Job, progress: str | None) -> str:
    """The same for people."""
    again = f" · continue: nas-cluster resume {job.run}" if job.resumable else ""
    code = f", exit code {job.code}" if job.ended else ""
    lines = [
        ("run", job.run),
        ("job", f"{job.job_id}, attempt {job.attempt}"),
        ("state", f"{job.status.lower()}{code}{again}"),
        ("started", _time(job.started_at)),
        ("storage", job.metadata.get("storage_path", "-")),
    ]
    if progress:
        lines.append(("progress", progress))
    return "".join(f"{name:<11} {value}\n" for name, value in lines)


def jobs_text(jobs: Sequence[Job]) -> str:
    """The newest job of each run as a table."""
    rows = [[_time(job.started_at), str(job.attempt), job.status.lower(), job.run] for job in jobs]
    return _table(["started", "attempts", "state", "run"], rows, left=2) if rows else "no runs\n"


def findings_text(findings: Sequence[tuple[str, str, str]]) -> str:
    """What `doctor` found, a line each."""
    width = max(len(what) for _, what, _ in findings)
    return "".join(f"{level:<7}  {what:<{width}}  {words}\n" for level, what, words in findings)


def _time(seconds: float | None) -> str:
    return "-" if seconds is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def training_line(row: TrainingRow) -> str:
    """One training that is done."""
    assert row.evaluation is not None
    point = "".join(f" {key}={value}" for key, value in row.settings["point"].items())
    who = f"{row.stage}: rank {row.rank} {row.source} seed {row.seed}{point}"
    if row.metric is None:
        return f"{who}: failed: {row.evaluation.cause}: {row.evaluation.message}"
    tested = "" if row.test_metric is None else f", test {row.test_metric:.4f}"
    return f"{who}: validation {row.metric:.4f}{tested}"


def stage_text(result: StageResult) -> str:
    """What a stage found, best first."""
    rows = []
    for rank, one in enumerate(result.ranked, start=1):
        metrics = [row.metric for row in one.rows if row.metric is not None]
        point = " ".join(f"{key}={value}" for key, value in one.point.items())
        parameters = next((row.evaluation.parameters for row in one.rows if row.evaluation), None)
        size = "-" if parameters is None else f"{parameters:,}"
        rows.append(
            [str(rank), mean_and_spread(metrics), mean_and_spread(one.tested), size, one.finalist.source, point]
        )
    head = ["rank", "validation", "test", "parameters", "architecture", "settings"]
    return f"{result.stage.name}\n" + _table(head, rows, left=2)


def mean_and_spread(values: Sequence[float]) -> str:
    """`0.9612 ± 0.0120 (n=2)`."""
    if not values:
        return "-"
    spread = f" ± {statistics.stdev(values):.4f} (n={len(values)})" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.4f}{spread}"


def fields_text(fields: Mapping[str, Any]) -> str:
    """One line a field."""
    width = max(len(name) for name in fields)
    return "".join(f"{name.replace('_', ' '):<{width}}  {_value(value)}\n" for name, value in fields.items())


def plan_text(plan: Mapping[str, Any]) -> str:
    """A plan (`nas_cluster.plan`) for people."""
    lines = []
    for section, content in plan.items():
        if isinstance(content, Mapping):
            lines.append(f"{section}")
            lines += [f"  {name.replace('_', ' '):<28} {_value(value)}" for name, value in content.items()]
        elif section == "first_children":
            lines.append("first children")
            lines += [f"  {child['summary']} · {_value(child['parameters'])} parameters" for child in content]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else "-" if value is None else str(value)


def _child_json(rank: int, row: ChildRow, objective: str) -> dict[str, Any]:
    assert row.evaluation is not None
    return {
        "rank": rank,
        "child_id": str(row.child.child_id),
        "arm": row.arm,
        "reward": row.reward,
        "objective": objective,
        "metrics": dict(row.evaluation.metrics),
        "key": row.child.key,
        "architecture": row.child.architecture,
    }


def _space(record: RunRecord) -> SearchSpace[Any] | None:
    """The run's space, or None when its code is not here: looking at a run must not need it."""
    try:
        return build_component(SearchSpace, record.config["space"], where="space")  # type: ignore[type-abstract]
    except ConfigError:
        return None


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, left: int) -> str:
    """Columns aligned to the right, the last `left` to the left."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = []
    for row in [head, *rows]:
        cells = [
            cell.ljust(width) if i >= len(head) - left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines) + "\n"
