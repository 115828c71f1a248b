"""What follows a search: its best architectures trained again, ranked anew, the last ones tested.

Trainings are spread over the cluster like children and committed by the same writer: one that is committed is never
done again, so a stage that was broken off goes on where it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from nas_cluster.cluster.children.pool import ChildPool
from nas_cluster.cluster.coordinator.commits import Writer
from nas_cluster.cluster.coordinator.phases import schedule_of, shared_states
from nas_cluster.cluster.messages import WorkerClient
from nas_cluster.cluster.session.backend import Backend, pool_shape
from nas_cluster.cluster.session.stages import (
    Finalist,
    Planned,
    StageResult,
    drawn_at_random,
    judged_again,
    plan_stage,
    rank,
    sampled,
    training_key,
)
from nas_cluster.cluster.session.stop import Stop
from nas_cluster.cluster.session.supervisor import until_it_raises
from nas_cluster.config import JobConfig, Stage
from nas_cluster.core.clock import SystemClock
from nas_cluster.core.errors import RunStopped
from nas_cluster.core.evaluation import ChildId, Report
from nas_cluster.storage.rows import SessionKind, TrainingRow

__all__ = ["OnTraining", "run_stages"]

OnTraining = Callable[[TrainingRow], None]


async def run_stages(
    config: JobConfig,
    directory: Path,
    stages: Sequence[Stage],
    finalists: Sequence[Finalist],
    backend: Backend,
    *,
    kind: SessionKind,
    stop: Stop,
    on_training: OnTraining = lambda row: None,
) -> list[StageResult]:
    """Run all stages, each on the best of the one before; what is in the journal already is taken from it.

    Raises RunStopped when a stop is asked for or the run cannot go on (what is done stays done), and when every
    training of a stage failed.
    """
    session = _AfterSearch(config, directory, backend, kind, on_training)
    watchers = [asyncio.create_task(session.obey(stop)), asyncio.create_task(session.hurry(stop))]
    ended = "failed"
    try:
        await session.start()
        results = await session.run(stages, finalists)
        ended = "done"
    except RunStopped:
        ended = stop.ended if stop.reason else ended
        raise
    finally:
        for watcher in watchers:
            watcher.cancel()
        await session.close(ended)
    return results


class _AfterSearch:
    """One session of stages: the writer of the run, and the pool of the stage at hand."""

    def __init__(
        self, config: JobConfig, directory: Path, backend: Backend, kind: SessionKind, on_training: OnTraining
    ) -> None:
        self._config = config
        self._directory = directory
        self._backend = backend
        self._on_training = until_it_raises(on_training)
        self._clock = SystemClock()
        self._writer = Writer(config, directory, self._clock, kind=kind, wind_down=self._wind_down)
        self._journal = self._writer.journal
        self._pool: ChildPool | None = None
        self._hurried = False

    async def start(self) -> None:
        """Raises RunError when another machine goes on with this run."""
        await self._writer.start()

    async def close(self, ended: str) -> None:
        """End the session."""
        await self._writer.close(ended)

    async def obey(self, stop: Stop) -> None:
        """Stop when it is asked for."""
        await stop.wait()
        await self._writer.stop(stop.reason)

    async def hurry(self, stop: Stop) -> None:
        """Cut short what a stop leaves to trainings in flight, when that is asked for."""
        await stop.wait_hurried()
        self._hurried = True
        if self._pool is not None:
            await self._pool.hurry()

    async def _wind_down(self) -> None:
        if self._pool is not None:
            if self._writer.failure is None and not self._hurried:
                await self._pool.drain(self._config.failures.stop_grace)
            await self._pool.close()

    async def run(self, stages: Sequence[Stage], finalists: Sequence[Finalist]) -> list[StageResult]:
        """All stages, one after the other."""
        results: list[StageResult] = []
        for stage in stages:
            result = await self._run_stage(stage, await asyncio.to_thread(self._chosen, stage, finalists))
            await self._writer.mirror()
            results.append(result)
            finalists = result.best()
        return results

    def _chosen(self, stage: Stage, finalists: Sequence[Finalist]) -> list[Finalist]:
        """What this stage trains."""
        if stage.sample is None:
            return stage.pick(finalists)
        if stage.sample_from == "random":
            return drawn_at_random(self._config, stage.sample)
        return sampled(self._config, self._journal, self._directory, stage.sample)

    async def _run_stage(self, stage: Stage, finalists: Sequence[Finalist]) -> StageResult:
        job = self._config.for_stage(stage)
        states = shared_states(self._journal, self._config, self._directory) if schedule_of(job) is not None else []
        recorded = {training_key(row): row for row in self._journal.trainings() if row.stage == stage.name}
        planned = [
            replace(one, row=recorded.get(training_key(one.row), one.row))
            for one in plan_stage(job, stage, finalists, states[-1] if states else None)
        ]
        await self._writer.commit(lambda: self._journal.plan_trainings([one.row for one in planned]))
        known = {row.key: row for row in self._journal.trainings()}
        open_ones = [one for one in planned if known[one.row.key].evaluation is None]
        if open_ones:
            await self._train(job, stage, open_ones)
            known = {row.key: row for row in self._journal.trainings()}
        judged = {one.row.key: judged_again(job, known[one.row.key]) for one in planned}
        return rank(stage, planned, judged, failure_reward=job.failures.reward)

    async def _train(self, job: JobConfig, stage: Stage, planned: Sequence[Planned]) -> None:
        """Train all of them; each is committed when it is done. Raises RunStopped when the session winds down first."""
        shape = pool_shape(job, capacity=self._backend.capacity(job), wanted=len(planned))

        async def spawn(index: int) -> WorkerClient:
            return await self._backend.spawn_worker(job, self._directory, index, test=stage.test)

        if self._writer.stopping is not None:
            raise RunStopped(self._writer.stopping)
        self._pool = pool = ChildPool(
            spawn,
            shape.workers,
            self._clock,
            slots_per_worker=shape.slots_per_worker,
            retries=job.failures.retries,
            each="" if job.estimator.shares_process else job.topology.resources.in_words,
            on_event=self._writer.note,
            on_reports=partial(self._keep_reports, {one.child.child_id: one.row for one in planned}),
        )
        pool.start()
        try:
            trainings = (self._train_one(job, pool, one) for one in planned)
            results = await asyncio.gather(*trainings, return_exceptions=True)
        finally:
            await pool.close()
        for result in results:
            if isinstance(result, BaseException):
                raise RunStopped(self._writer.stopping) if self._writer.stopping is not None else result

    async def _train_one(self, job: JobConfig, pool: ChildPool, training: Planned) -> None:
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
        await self._writer.commit(lambda: self._journal.training_done(row, scored.attempts, scored.reports))
        self._writer.mirror_soon()
        self._on_training(row)

    def _keep_reports(
        self, rows: Mapping[ChildId, TrainingRow], child_id: ChildId, attempt: int, reports: Sequence[Report]
    ) -> None:
        """Record what a training says while it goes on; nobody waits for that."""
        row = rows[child_id]
        self._writer.write_soon(lambda: self._journal.add_reports(row.name, attempt, reports, stage=row.stage))
