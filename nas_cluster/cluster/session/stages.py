"""What a stage after a search trains, and how it ranks what was trained: no I/O beside reading the record."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from nas_cluster.cluster.coordinator.snapshots import states_of
from nas_cluster.config import JobConfig, Stage
from nas_cluster.core.component import build_component
from nas_cluster.core.decisions import Tokens
from nas_cluster.core.errors import ConfigError, RunStopped
from nas_cluster.core.evaluation import Child, ChildId
from nas_cluster.core.phases import SharedState
from nas_cluster.core.seeds import derive, stream
from nas_cluster.core.version_1 import read_estimator
from nas_cluster.datasets import Dataset
from nas_cluster.estimators import Estimator
from nas_cluster.storage.layout import SNAPSHOTS
from nas_cluster.storage.queries import Queries
from nas_cluster.storage.rows import TrainingRow
from nas_cluster.storage.snapshots import SnapshotStore

__all__ = [
    "Finalist",
    "Planned",
    "Ranked",
    "StageResult",
    "drawn_at_random",
    "finalists_of",
    "judged_again",
    "plan_stage",
    "rank",
    "sampled",
    "training_key",
]


@dataclass(frozen=True)
class Finalist:
    """An architecture that a stage trains.

    source: a child_id, or the name of a published architecture. chosen: settings that an earlier stage's grid chose.
    """

    source: str
    child: Child
    chosen: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Ranked:
    """A finalist after a stage, at one point of its grid: its trainings by seed, and their mean reward."""

    finalist: Finalist
    point: dict[str, Any]
    rows: tuple[TrainingRow, ...]
    reward: float

    @property
    def failed(self) -> bool:
        """Whether all of them failed."""
        return all(row.metric is None for row in self.rows)

    @property
    def tested(self) -> tuple[float, ...]:
        """The test metrics, by seed."""
        return tuple(row.test_metric for row in self.rows if row.test_metric is not None)


@dataclass(frozen=True)
class StageResult:
    """A stage that is done; `ranked` best first."""

    stage: Stage
    ranked: tuple[Ranked, ...]

    def best(self) -> list[Finalist]:
        """Each architecture once, at its best point, best first: what the next stage chooses from."""
        found: dict[str, Finalist] = {}
        for ranked in self.ranked:
            chosen = {**ranked.finalist.chosen, **self.stage.choices(ranked.point)}
            found.setdefault(ranked.finalist.source, replace(ranked.finalist, chosen=chosen))
        return list(found.values())


@dataclass(frozen=True)
class Planned:
    """One training: its row, the child that travels to a worker, and who it belongs to."""

    row: TrainingRow
    child: Child
    finalist: Finalist
    point: dict[str, Any]


def finalists_of(record: Queries) -> list[Finalist]:
    """The distinct architectures of a search, best first."""
    return [Finalist(str(row.child.child_id), row.child) for row in record.top(record.counts()["done"])]


def sampled(config: JobConfig, record: Queries, directory: Path, count: int) -> list[Finalist]:
    """Architectures drawn from the policy of the newest snapshot, each once."""
    found, _ = SnapshotStore(directory / SNAPSHOTS).newest_good(record.snapshots())
    if found is None:
        raise RunStopped("no snapshot of the search can be read, there is no policy to sample from")
    _, arrays, meta = found
    states = states_of(arrays, meta)
    weights = np.concatenate([state.arrays["weights"] for state in states])
    spec = config.space.decisions()
    proposer = config.strategy.proposer(spec)
    proposal = proposer.propose(weights, states[0].meta["state"] or {}, spec, count, derive(config.seed, "derive"))
    return _as_finalists(config, "sample", proposal.tokens)


def drawn_at_random(config: JobConfig, count: int) -> list[Finalist]:
    """Architectures drawn uniformly at random, each once."""
    seed = derive(config.seed, "random_sample")
    return _as_finalists(config, "random", [config.space.random(stream(seed, index)) for index in range(count)])


def _as_finalists(config: JobConfig, word: str, sampled: Sequence[Tokens]) -> list[Finalist]:
    finalists: dict[str, Finalist] = {}
    for index, tokens in enumerate(sampled):
        architecture = config.space.decode(tokens)
        key = config.space.key(architecture)
        child = Child(ChildId(0, 0, 0), 0, tokens, architecture.to_json(), key, seed=0)
        finalists.setdefault(key, Finalist(f"{word}-{index}", child))
    return list(finalists.values())


def plan_stage(
    job: JobConfig, stage: Stage, finalists: Sequence[Finalist], shared: SharedState | None
) -> list[Planned]:
    """Every finalist at every point of the grid with every seed."""
    planned: list[Planned] = []
    default = job.estimator.model_dump(mode="json")
    for rank, finalist in enumerate(finalists, start=1):
        for point in stage.combinations():
            settings = stage.estimator_with({**finalist.chosen, **point}, job.estimator).model_dump(mode="json")
            about = {
                "estimator": settings,
                "dataset": None if job.dataset is None else job.dataset.model_dump(mode="json"),
                "scale": stage.scale,
                "test": stage.test,
                "point": point,
            }
            for seed in range(stage.seeds):
                row = TrainingRow(stage.name, finalist.source, finalist.child.architecture, rank, seed, about)
                place = len(planned)
                child = replace(
                    finalist.child,
                    child_id=ChildId(rank, seed, place),
                    number=finalist.child.first_number + place,  # its space stays that of its own stage
                    seed=derive(job.seed, "retrain", finalist.child.key, seed),
                    estimator=None if settings == default else settings,
                    shared=shared,
                )
                planned.append(Planned(row, child, finalist, point))
    return planned


def training_key(row: TrainingRow) -> tuple[str, str, int, str]:
    """What makes a training this one and no other. A journal may be older than an option of an estimator or a dataset:
    settings are compared as today's components read them."""
    settings = dict(row.settings)
    with suppress(ConfigError):
        estimator, _ = read_estimator(settings["estimator"])
        settings["estimator"] = build_component(Estimator, estimator, where="estimator").model_dump(mode="json")  # type: ignore[type-abstract]
        if settings["dataset"] is not None:
            dataset = build_component(Dataset, settings["dataset"], where="dataset")  # type: ignore[type-abstract]
            settings["dataset"] = dataset.model_dump(mode="json")
    return row.stage, row.source, row.seed, json.dumps(settings, sort_keys=True)


def judged_again(job: JobConfig, row: TrainingRow) -> TrainingRow:
    """A training that is done, by the objective and the reward that are asked for now: it may have been recorded when
    another metric counted. One that did not measure the metric has failed."""
    if row.evaluation is None or row.evaluation.status != "ok":
        return row
    if job.objective.name not in row.evaluation.metrics and job.objective == job.estimator.objective:
        return row  # of 0.1, which did not record what somebody's own estimator calls its metric
    judged = job.judge(row.evaluation)
    return replace(
        row, evaluation=judged.evaluation, metric=judged.metric, reward=judged.reward, test_metric=judged.test
    )


def rank(
    stage: Stage, planned: Sequence[Planned], known: dict[Any, TrainingRow], *, failure_reward: float
) -> StageResult:
    """By mean reward over seeds, a failed training counting as a failed child does; of equal ones the earlier. Whose
    trainings all failed is last, whatever the numbers. Raises RunStopped when every training failed."""
    groups: dict[tuple[str, str], list[Planned]] = {}
    for one in planned:
        groups.setdefault((one.finalist.source, json.dumps(one.point)), []).append(one)
    ranked: list[Ranked] = []
    for group in groups.values():
        rows = tuple(known[one.row.key] for one in group)
        rewards = [failure_reward if row.reward is None else row.reward for row in rows]
        ranked.append(Ranked(group[0].finalist, group[0].point, rows, statistics.fmean(rewards)))
    failed = [row.evaluation for one in ranked for row in one.rows if row.evaluation and row.metric is None]
    if ranked and len(failed) == len(planned):
        raise RunStopped(
            f"stage {stage.name}: every training failed; the last: {failed[-1].cause}: {failed[-1].message}"
        )
    return StageResult(stage, tuple(sorted(ranked, key=lambda one: (one.failed, -one.reward))))
