"""The coordinator: the single writer of a run, and the queue of its children.

Everything that decides what a run *is* passes through here: which children are admitted, planned, scored and counted,
and when the parameter servers are snapshotted. A child counts when its row is committed, and only then does its reward
reach a replica. After a crash the same calls come again; what is already in the journal is answered from it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas_cluster.cluster.children.pool import ChildPool, SpawnWorker
from nas_cluster.cluster.coordinator import planning as minibatch
from nas_cluster.cluster.coordinator.admission import make_admissions
from nas_cluster.cluster.coordinator.attendance import Attendance
from nas_cluster.cluster.coordinator.commits import GroupCommit
from nas_cluster.cluster.coordinator.phases import Phases, schedule_of
from nas_cluster.cluster.coordinator.snapshots import Snapshots
from nas_cluster.cluster.coordinator.totals import Tally
from nas_cluster.cluster.messages import (
    Admission,
    BatchRequest,
    BatchResult,
    Outcome,
    PartLost,
    Progress,
    Receipt,
    ShardClient,
)
from nas_cluster.config import JobConfig
from nas_cluster.core.clock import Clock
from nas_cluster.core.errors import Fenced, RunStopped
from nas_cluster.core.evaluation import ChildId, Report
from nas_cluster.storage.journal import Journal, StorageFull
from nas_cluster.storage.rows import BatchRow, ChildRow

__all__ = ["Coordinator"]

_HEARTBEAT_SECONDS = 5.0


class Coordinator:
    """Owns the journal of the run in `directory` for one session, from construction to `close`."""

    def __init__(
        self,
        config: JobConfig,
        directory: Path,
        *,
        spawn: SpawnWorker,
        workers: int,
        slots_per_worker: int,
        clock: Clock,
    ) -> None:
        self._config = config
        self._clock = clock
        self._journal = Journal.open(directory)
        if self._journal.config != config.to_dict():
            self._journal.set_config(config.to_dict(), reason="continued with another config")
        self._commit = GroupCommit(self._journal, self._on_full)
        self._tally = Tally(config, self._journal, directory, clock)
        self._snapshots = Snapshots(config, self._journal, directory)
        self._pool = ChildPool(
            spawn,
            workers,
            clock,
            slots_per_worker=slots_per_worker,
            retries=config.failures.retries,
            on_event=lambda kind, detail: self._note(kind, detail),
            on_reports=lambda *reported: self._spawn_task(self._keep_reports(*reported)),
        )
        self._attendance = Attendance(config, self._pool, clock)
        schedule = schedule_of(config)
        self._phases: Phases | None = None
        if schedule is not None:
            self._phases = Phases(
                config, schedule, directory, self._journal, self._commit, self._pool, clock, self._note
            )
        self._open_minibatches: set[tuple[int, int]] = set()
        self._minibatch_over = asyncio.Condition()
        self._empty_shards: list[ShardClient] = []
        self._shards: list[ShardClient] = []
        """Those that have been given their weights."""
        self._to_mirror = False
        self._stopping: str | None = None
        self._stopped: asyncio.Future[None] | None = None
        self._failure: BaseException | None = None
        self._paused_at = 0.0
        self._admissions = make_admissions(config, self._journal, self._over)
        self._scoring: dict[str, asyncio.Task[ChildRow]] = {}
        self._background: set[asyncio.Task[Any]] = set()

    # -- start and end -------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the workers and the heartbeat. Raises RunError when another machine goes on with this run."""
        await self._snapshots.claim()
        self._pool.start()
        self._spawn_task(self._heartbeat())

    async def connect(self, shards: list[ShardClient]) -> dict[int, int] | None:
        """Give these (empty) shards the newest good snapshot.

        Returns the number of each replica's next push, or None when there is no snapshot: then `initialise`.
        """
        await self._commit(lambda: None)  # whatever lost replicas had planned is in the journal now
        self._shards, self._empty_shards = [], shards
        self._open_minibatches.clear()
        self._admissions.reload()
        pushes = await self._snapshots.restore(shards)
        if pushes is not None:
            self._shards, self._to_mirror = shards, True
        return pushes

    async def initialise(self, weights: Mapping[str, NDArray[np.float32]]) -> dict[int, int]:
        """Give the shards of a new run their first weights and make them durable."""
        pushes = await self._snapshots.initialise(self._empty_shards, weights)
        self._shards, self._to_mirror = self._empty_shards, True
        return pushes

    async def stop(self, reason: str) -> None:
        """Admit no more children, give those in flight `failures.stop_grace`, drop what is left (a resumed run trains
        it), and let every waiter go. Asked again, it waits for the first to be done."""
        if self._stopped is None:
            self._stopping = reason
            self._stopped = asyncio.ensure_future(self._stop())
        await asyncio.shield(self._stopped)

    async def _stop(self) -> None:
        self._commit.give_up()
        if self._failure is None:
            await self._pool.drain(self._config.failures.stop_grace)
        await self._pool.close()
        await asyncio.gather(*self._scoring.values(), return_exceptions=True)  # what was scored is committed
        await asyncio.gather(*(shard.halt() for shard in self._shards), return_exceptions=True)
        async with self._minibatch_over:
            self._minibatch_over.notify_all()

    async def hurry(self) -> None:
        """Cut short what `stop` leaves to children in flight."""
        await self._pool.hurry()

    async def close(self, ended: str) -> Outcome:
        """Final snapshot and end of the session. `ended` is done unless the run was stopped or failed."""
        await self._pool.close()
        for task in self._background:
            task.cancel()
        if self._shards:
            try:
                await self._snapshots.take(self._shards)
            except (StorageFull, PartLost):
                pass  # the journal has what the snapshot would have saved
            except Fenced as error:
                self._failure, self._stopping = error, self._stopping or str(error)
        if self._stopping is not None and ended == "done":
            ended = "failed" if self._failure else "stopped"
        progress = await self.progress()
        self._tally.close()
        with suppress(StorageFull):
            self._journal.heartbeat(self._tally.session_seconds)
            self._journal.close(ended)
        self._journal.close()
        try:
            if self._to_mirror and not isinstance(self._failure, Fenced):
                await self._snapshots.mirror(last=True)
        finally:
            await self._snapshots.release()
        return Outcome(ended, self._stopping or "the budget is used", progress)

    async def _heartbeat(self) -> None:
        while True:
            await self._clock.sleep(_HEARTBEAT_SECONDS)
            if self._attendance.look():
                self._note("workers_awaited", {"for": self._attendance.waits_for})
            await self._commit(lambda: self._journal.heartbeat(self._tally.session_seconds))
            with suppress(OSError):  # shared storage is out of reach, perhaps only for now
                await self._snapshots.check()

    def _spawn_task(self, work: Any) -> None:
        """A background task whose failure stops the run instead of being forgotten."""

        def finished(task: asyncio.Task[Any]) -> None:
            self._background.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                self._fail(error)

        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(finished)

    def _fail(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = error
            self._spawn_task(self.stop(str(error)))

    # -- admission -----------------------------------------------------------------------------------------------------

    async def admit(self, replica: int, update: int) -> Admission | None:
        """Leave to sample minibatch `update`, or None when the search is over or stopping."""
        if self._config.mode == "asynchronous":
            await self._pool.wait_below(2 * self._pool.slots)
        if self._stopping is not None:
            return None
        admission = self._admissions.admit(replica, update)
        if admission is not None and self._phases is not None:
            if not await self._after_phases(self._phases, self._admissions.place(admission, update)):
                return None
            self._open_minibatches.add((replica, update))
        return admission

    async def _after_phases(self, phases: Phases, number: int) -> bool:
        """Wait until what children share is trained as far as minibatch (or round) `number` needs. A phase begins when
        every minibatch before it is over: its children are scored with the tensors that they were sampled for."""
        try:
            if not phases.over(number):
                async with self._minibatch_over:
                    await self._minibatch_over.wait_for(lambda: not self._open_minibatches or self._stopping)
                await phases.catch_up(number, self._shards)
        except Exception as error:
            self._fail(error)
        return self._stopping is None and self._failure is None

    async def _close_minibatch(self, replica: int, update: int) -> None:
        self._open_minibatches.discard((replica, update))
        async with self._minibatch_over:
            self._minibatch_over.notify_all()

    def _over(self) -> bool:
        return self._stopping is not None or self._tally.budget_used()

    # -- children ------------------------------------------------------------------------------------------------------

    async def evaluate(self, request: BatchRequest) -> BatchResult | None:
        """Record a minibatch, have its children scored, and return their committed rewards; None when stopping."""
        if self._failure is not None:
            raise self._failure
        recorded = {
            row.child.child_id.index: row for row in self._journal.batch_children(request.replica, request.update)
        }
        rows = [
            recorded.get(i) or minibatch.planned(self._config, request, i, at=self._clock.now())
            for i in range(request.admission.count)
        ]
        self._check_replay(request, recorded)
        new = [row for row in rows if row.child.child_id.index not in recorded]
        try:
            if new:
                batch = BatchRow(
                    replica=request.replica,
                    update=request.update,
                    base_version=request.base_version,
                    controller_hash=request.controller_hash,
                    planned_at=self._clock.now(),
                )
                await self._commit(lambda: self._journal.plan(batch, new))
            done = await asyncio.gather(*(self._scored(row) for row in rows))
        except RunStopped:
            return None
        return self._result(done)

    async def recorded(self, replica: int, update: int) -> BatchResult:
        """A minibatch of which some epochs were learned already: its rewards were committed before the first."""
        return self._result(self._journal.batch_children(replica, update))

    def _result(self, rows: Sequence[ChildRow]) -> BatchResult:
        update = rows[0].child.child_id.update
        return minibatch.to_learn_from(rows, learn=self._admissions.learns_from(update))

    def _check_replay(self, request: BatchRequest, recorded: Mapping[int, ChildRow]) -> None:
        """In synchronous mode a replayed minibatch must be the recorded one."""
        if self._config.mode == "synchronous" and (indices := minibatch.differing(request, recorded)):
            self._note("replay_differs", {"replica": request.replica, "update": request.update, "indices": indices})

    async def _scored(self, row: ChildRow) -> ChildRow:
        """The child's committed row. Asked again (by a restarted replica), it joins what is under way."""
        if row.done:
            return row
        name = str(row.child.child_id)
        if name not in self._scoring:
            task = asyncio.ensure_future(self._score(row))
            task.add_done_callback(lambda _: self._scoring.pop(name, None))
            self._scoring[name] = task
        return await asyncio.shield(self._scoring[name])

    async def _score(self, row: ChildRow) -> ChildRow:
        """Answer from the cache or from a worker, commit, and only then return."""
        earlier = None
        reports: Sequence[Report] = ()
        if self._config.cache and self._phases is None:  # what children share changes, and their scores with it
            earlier = self._journal.find_scored(row.child.key)
        if earlier is not None:
            row = replace(
                row,
                evaluation=earlier.evaluation,
                metric=earlier.metric,
                reward=earlier.reward,
                finished_at=self._clock.now(),
                cached_from=str(earlier.child.child_id),
            )
        else:
            shared = self._phases.state if self._phases is not None else None
            scored = await self._pool.evaluate(replace(row.child, shared=shared))
            row, reports = minibatch.scored(self._config, row, scored), scored.reports
        child_id = str(row.child.child_id)
        assert row.evaluation is not None and row.reward is not None and row.finished_at is not None
        evaluation, reward, finished_at = row.evaluation, row.reward, row.finished_at
        first = await self._commit(
            lambda: self._journal.done(
                child_id,
                evaluation,
                reward,
                metric=row.metric,
                started_at=row.started_at,
                finished_at=finished_at,
                worker=row.worker,
                attempts=row.attempts,
                cached_from=row.cached_from,
                reports=reports,
            )
        )
        if first:
            self._tally.child_done(row)
            if self._tally.failed_in_a_row >= self._config.failures.max_in_a_row:
                cause, message = evaluation.cause, evaluation.message
                self._fail(
                    TooManyFailures(
                        f"{self._tally.failed_in_a_row} children failed in a row (failures.max_in_a_row); "
                        f"the last one: {cause}: {message}"
                    )
                )
        return row

    async def _keep_reports(self, child_id: ChildId, attempt: int, reports: Sequence[Report]) -> None:
        """Of a child that is still at work, which waits for nothing."""
        with suppress(StorageFull):
            await self._commit(lambda: self._journal.add_reports(str(child_id), attempt, reports))

    # -- updates -------------------------------------------------------------------------------------------------------

    async def applied(
        self, replica: int, update: int, epoch: int, receipts: list[Receipt], scalars: dict[str, float]
    ) -> Admission | None:
        """A replica's gradient has reached all shards; snapshot the shards when it is time. After a minibatch's last
        gradient the answer is what `admit` says of the next one: one call less for each."""
        last = epoch == self._config.strategy.learning_epochs - 1
        fresh = [receipt for receipt in receipts if receipt.outcome != "duplicate"]
        outcome = fresh[0].outcome if fresh else "applied"  # all had taken it, and then a crash lost this report
        staleness = max(receipt.staleness for receipt in receipts)
        await self._commit(
            lambda: self._journal.applied(
                replica,
                update,
                epoch=epoch,
                last=last,
                applied_at=self._clock.now(),
                staleness=staleness,
                outcome=outcome,
                scalars=scalars,
            )
        )
        if last:
            await self._close_minibatch(replica, update)
        self._tally.update_applied([receipt.version for receipt in receipts], staleness, scalars)
        try:
            await self._snapshots.take_when_due(self._shards, min(receipt.version for receipt in receipts))
        except StorageFull:
            pass  # a later one will do
        except Fenced as error:
            self._fail(error)
        return await self.admit(replica, update + 1) if last else None

    # -- for people ----------------------------------------------------------------------------------------------------

    async def event(self, kind: str, detail: dict[str, Any]) -> None:
        """Record something that happened outside (a lost shard, a recovery)."""
        self._note(kind, detail)

    def _note(self, kind: str, detail: Mapping[str, Any]) -> None:
        self._tally.last_event = f"{kind}: " + ", ".join(f"{key} {value}" for key, value in detail.items())
        try:
            self._journal.event(kind, **detail)
        except StorageFull:
            self._spawn_task(self._commit(lambda: self._journal.event(kind, **detail)))

    def _on_full(self, reason: str | None) -> None:
        """The disk is full: everything waits for the next commit, children in flight go on. Or it has room again."""
        if reason is not None:
            self._paused_at = self._clock.monotonic()
            self._tally.last_event = f"paused until there is room on the disk: {reason}"
        else:
            self._note("disk_was_full", {"seconds": round(self._clock.monotonic() - self._paused_at, 1)})

    async def progress(self) -> Progress:
        """How the run stands."""
        progress = self._tally.progress(busy=self._pool.busy, slots=self._pool.slots, waiting=self._pool.waiting)
        return replace(progress, waits_for=self._attendance.waits_for)


class TooManyFailures(RunStopped):
    """So many children failed one after the other that the fault is hardly theirs."""
