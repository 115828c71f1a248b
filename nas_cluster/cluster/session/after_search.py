"""Stages after a search: its best architectures trained again, ranked anew, the last ones tested.

Trainings are spread over the cluster like children and journaled like them: one that is committed is never done again,
so a stage that was broken off goes on where it was.
"""

from __future__ import annotations

import asyncio
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from nas_cluster.cluster.children.pool import ChildPool, OnReports
from nas_cluster.cluster.coordinator.phases import schedule_of, shared_states
from nas_cluster.cluster.coordinator.snapshots import states_of
from nas_cluster.cluster.messages import WorkerClient
from nas_cluster.cluster.session.backend import Backend, pool_shape
from nas_cluster.cluster.session.stop import Stop
from nas_cluster.config import JobConfig, Stage
from nas_cluster.core.clock import SystemClock
from nas_cluster.core.decisions import Tokens
from nas_cluster.core.errors import RunStopped
from nas_cluster.core.evaluation import Child, ChildId, Report
from nas_cluster.core.phases import SharedState
from nas_cluster.core.seeds import derive, stream
from nas_cluster.storage.journal import Journal
from nas_cluster.storage.layout import SNAPSHOTS, is_remote
from nas_cluster.storage.mirror import Mirror
from nas_cluster.storage.queries import Queries
from nas_cluster.storage.rows import TrainingRow
from nas_cluster.storage.snapshots import SnapshotStore

__all__ = ["Candidate", "Ranked", "StageResult", "candidates_of", "run_stages"]

OnTraining = Callable[[TrainingRow], None]


@dataclass(frozen=True)
class Candidate:
    """An architecture that a stage trains.

    source: a child_id, or the name of a published architecture. chosen: settings that an earlier stage's grid chose.
    """

    source: str
    child: Child
    chosen: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Ranked:
    """A candidate after a stage, at one point of its grid: its trainings by seed, and their mean reward."""

    candidate: Candidate
    point: dict[str, Any]
    rows: tuple[TrainingRow, ...]
    reward: float

    @property
    def tested(self) -> tuple[float, ...]:
        """The test metrics, by seed."""
        return tuple(row.test_metric for row in self.rows if row.test_metric is not None)


@dataclass(frozen=True)
class StageResult:
    """A stage that is done; `ranked` best first."""

    stage: Stage
    ranked: tuple[Ranked, ...]

    def best(self) -> list[Candidate]:
        """Each architecture once, at its best point, best first: what the next stage chooses from."""
        found: dict[str, Candidate] = {}
        for ranked in self.ranked:
            chosen = {**ranked.candidate.chosen, **self.stage.choices(ranked.point)}
            found.setdefault(ranked.candidate.source, replace(ranked.candidate, chosen=chosen))
        return list(found.values())


@dataclass(frozen=True)
class _Planned:
    """One training: its row, the child that travels to a worker, and who it belongs to."""

    row: TrainingRow
    child: Child
    candidate: Candidate
    point: dict[str, Any]


def candidates_of(record: Queries) -> list[Candidate]:
    """The distinct architectures of a search, best first."""
    return [Candidate(str(row.child.child_id), row.child) for row in record.top(record.counts()["done"])]


async def run_stages(
    config: JobConfig,
    directory: Path,
    stages: Sequence[Stage],
    candidates: Sequence[Candidate],
    backend: Backend,
    *,
    phase: str,
    stop: Stop,
    on_training: OnTraining = lambda row: None,
) -> list[StageResult]:
    """Run all stages, each on the best of the one before; what is in the journal already is taken from it.

    Raises RunStopped on a signal (what is done stays done) and when every training of a stage failed.
    """
    results: list[StageResult] = []
    mirror = Mirror(config.storage_path, config.name) if is_remote(config.storage_path) else None
    if mirror is not None:
        await asyncio.to_thread(mirror.claim, directory)
    with Journal.open(directory, phase=phase) as journal:
        ended = "failed"
        if phase == "finalize" and journal.config != config.to_dict():
            journal.set_config(config.to_dict(), reason="continued with another config")
        try:
            for stage in stages:
                if stage.sample is None:
                    chosen = stage.pick(candidates)
                else:
                    draw = _random if stage.sample_from == "random" else _sampled
                    chosen = await asyncio.to_thread(draw, config, journal, directory, stage.sample)
                result = await _run_stage(config, directory, stage, chosen, backend, journal, stop, on_training)
                results.append(result)
                candidates = result.best()
            ended = "done"
        except RunStopped:
            ended = stop.ended if stop.reason else ended
            raise
        finally:
            journal.close(ended)
            if mirror is not None:
                await asyncio.to_thread(mirror.push, directory)
                await asyncio.to_thread(mirror.release)
    return results


def _sampled(config: JobConfig, journal: Journal, directory: Path, count: int) -> list[Candidate]:
    """Architectures drawn from the policy of the newest snapshot, each once."""
    found, _ = SnapshotStore(directory / SNAPSHOTS).newest_good(journal.snapshots())
    if found is None:
        raise RunStopped("no snapshot of the search can be read, there is no policy to sample from")
    _, arrays, meta = found
    states = states_of(arrays, meta)
    weights = np.concatenate([state.arrays["weights"] for state in states])
    spec = config.space.decisions()
    proposer = config.strategy.proposer(spec)
    proposal = proposer.propose(weights, states[0].meta["state"] or {}, spec, count, derive(config.seed, "derive"))
    return _as_candidates(config, "sample", proposal.tokens)


def _random(config: JobConfig, journal: Journal, directory: Path, count: int) -> list[Candidate]:
    """Architectures drawn uniformly at random, each once."""
    seed = derive(config.seed, "random_sample")
    return _as_candidates(config, "random", [config.space.random(stream(seed, index)) for index in range(count)])


def _as_candidates(config: JobConfig, word: str, sampled: Sequence[Tokens]) -> list[Candidate]:
    candidates: dict[str, Candidate] = {}
    for index, tokens in enumerate(sampled):
        architecture = config.space.decode(tokens)
        key = config.space.key(architecture)
        child = Child(ChildId(0, 0, 0), 0, tokens, architecture.to_json(), key, seed=0)
        candidates.setdefault(key, Candidate(f"{word}-{index}", child))
    return list(candidates.values())


async def _run_stage(
    config: JobConfig,
    directory: Path,
    stage: Stage,
    candidates: Sequence[Candidate],
    backend: Backend,
    journal: Journal,
    stop: Stop,
    on_training: OnTraining,
) -> StageResult:
    job = config.for_stage(stage)
    states = shared_states(journal, config, directory) if schedule_of(job) is not None else []
    planned = _plan(job, stage, candidates, states[-1] if states else None)
    journal.plan_trainings([one.row for one in planned])
    known = {row.key: row for row in journal.trainings()}
    open_ones = [one for one in planned if known[one.row.key].evaluation is None]
    if open_ones:
        shape = pool_shape(job, capacity=backend.capacity(job), wanted=len(open_ones))

        async def spawn(index: int) -> WorkerClient:
            return await backend.spawn_worker(job, directory, index, test=stage.test)

        pool = ChildPool(
            spawn,
            shape.workers,
            SystemClock(),
            slots_per_worker=shape.slots_per_worker,
            retries=job.failures.retries,
            on_event=lambda kind, detail: journal.event(kind, **detail),
            on_reports=_keep_reports(journal, open_ones),
        )
        await _train_all(job, journal, pool, open_ones, stop, on_training)
        known = {row.key: row for row in journal.trainings()}
    return _rank(stage, planned, known, failure_reward=job.failures.reward)


def _plan(job: JobConfig, stage: Stage, candidates: Sequence[Candidate], shared: SharedState | None) -> list[_Planned]:
    """Every candidate at every point of the grid with every seed."""
    planned: list[_Planned] = []
    default = job.estimator.model_dump(mode="json")
    for rank, candidate in enumerate(candidates, start=1):
        for point in stage.combinations():
            settings = stage.estimator_with({**candidate.chosen, **point}, job.estimator).model_dump(mode="json")
            about = {
                "estimator": settings,
                "dataset": job.dataset.model_dump(mode="json"),
                "scale": stage.scale,
                "test": stage.test,
                "point": point,
            }
            for seed in range(stage.seeds):
                row = TrainingRow(stage.name, candidate.source, candidate.child.architecture, rank, seed, about)
                place = len(planned)
                child = replace(
                    candidate.child,
                    child_id=ChildId(rank, seed, place),
                    number=candidate.child.stage + place,  # its space stays that of its own stage
                    seed=derive(job.seed, "retrain", candidate.child.key, seed),
                    estimator=None if settings == default else settings,
                    shared=shared,
                )
                planned.append(_Planned(row, child, candidate, point))
    return planned


def _keep_reports(journal: Journal, planned: Sequence[_Planned]) -> OnReports:
    rows = {one.child.child_id: one.row for one in planned}

    def keep(child_id: ChildId, attempt: int, reports: Sequence[Report]) -> None:
        journal.add_reports(rows[child_id].name, attempt, reports, stage=rows[child_id].stage)

    return keep


async def _train_all(
    job: JobConfig, journal: Journal, pool: ChildPool, planned: Sequence[_Planned], stop: Stop, on_training: OnTraining
) -> None:
    """Train all of them; each is committed when it is done. A stop gives those in flight `failures.stop_grace`."""

    async def one(training: _Planned) -> None:
        scored = await pool.evaluate(training.child)
        judged = job.judge(scored.evaluation)
        row = replace(
            training.row,
            evaluation=judged.evaluation,
            metric=judged.metric,
            reward=judged.reward,
            test_metric=judged.test,
            finished_at=scored.finished_at,
        )
        with journal.transaction():
            journal.training_done(row)
            journal.add_reports(row.name, scored.attempts, scored.reports, stage=row.stage)
        on_training(row)

    async def watch() -> None:
        await stop.wait()
        await pool.drain(job.failures.stop_grace)
        await pool.close()

    async def hurry() -> None:
        await stop.wait_hurried()
        await pool.hurry()

    pool.start()
    watchers = [asyncio.create_task(watch()), asyncio.create_task(hurry())]
    try:
        results = await asyncio.gather(*(one(training) for training in planned), return_exceptions=True)
    finally:
        for watcher in watchers:
            watcher.cancel()
        await pool.close()
    for result in results:
        if isinstance(result, BaseException):
            raise RunStopped(stop.reason) if stop.reason else result


def _rank(
    stage: Stage, planned: Sequence[_Planned], known: dict[Any, TrainingRow], *, failure_reward: float
) -> StageResult:
    """Mean reward over seeds, a failed training counting as a failed child does; of equal ones the earlier."""
    groups: dict[tuple[str, str], list[_Planned]] = {}
    for one in planned:
        groups.setdefault((one.candidate.source, json.dumps(one.point)), []).append(one)
    ranked: list[Ranked] = []
    for group in groups.values():
        rows = tuple(known[one.row.key] for one in group)
        rewards = [failure_reward if row.reward is None else row.reward for row in rows]
        ranked.append(Ranked(group[0].candidate, group[0].point, rows, statistics.fmean(rewards)))
    failed = [row.evaluation for one in ranked for row in one.rows if row.evaluation and row.metric is None]
    if ranked and len(failed) == len(planned):
        raise RunStopped(
            f"stage {stage.name}: every training failed; the last: {failed[-1].cause}: {failed[-1].message}"
        )
    return StageResult(stage, tuple(sorted(ranked, key=lambda one: -one.reward)))
