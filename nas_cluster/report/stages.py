"""What followed a search: the stages of `finalize`, grids and retrainings, each as a table of means over seeds."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from typing import Any

from nas_cluster.storage.rows import TrainingRow

__all__ = ["stage_tables"]

_LINES = 20


def stage_tables(rows: Sequence[TrainingRow]) -> list[dict[str, Any]]:
    """One table a stage, in the order in which they ran; its lines best mean reward first, at most twenty."""
    stages: dict[str, dict[str, list[TrainingRow]]] = {}
    for row in rows:
        settings = json.dumps(row.settings, sort_keys=True)
        stages.setdefault(row.stage, {}).setdefault(f"{row.source} {settings}", []).append(row)
    tables = []
    for name, groups in stages.items():
        ordered = sorted(groups.values(), key=_mean_reward, reverse=True)
        waiting = sum(row.evaluation is None for row in rows if row.stage == name)
        lines = [_line(group) for group in ordered[:_LINES]]
        tables.append({"name": name, "lines": lines, "more": len(ordered) - len(lines), "waiting": waiting})
    return tables


def _mean_reward(group: Sequence[TrainingRow]) -> float:
    rewards = [row.reward for row in group if row.reward is not None]
    return statistics.fmean(rewards) if rewards else float("-inf")


def _line(group: Sequence[TrainingRow]) -> dict[str, Any]:
    done = [row for row in group if row.evaluation is not None]
    scored = [row.evaluation for row in done if row.evaluation is not None and row.metric is not None]
    first = group[0]
    settings = first.settings
    changed = {**{f"scale.{key}": value for key, value in settings["scale"].items()}, **settings["point"]}
    epochs = settings["estimator"].get("epochs")
    return {
        "source": first.source,
        "rank": first.rank,
        "dataset": "-" if settings["dataset"] is None else settings["dataset"]["kind"],
        "settings": ", ".join(f"{key} {value}" for key, value in changed.items()),
        "epochs": "-" if epochs is None else f"{epochs}",
        "parameters": f"{scored[0].parameters:,}" if scored and scored[0].parameters is not None else "-",
        "seeds": len(done),
        "failed": len(done) - len(scored),
        "validation": _mean_and_spread([row.metric for row in done if row.metric is not None]),
        "test": _mean_and_spread([row.test_metric for row in done if row.test_metric is not None]),
    }


def _mean_and_spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.4f}{spread}"
