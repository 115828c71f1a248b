"""The coordinator: the queue of a search's children, and what of them is recorded.

Everything that decides what a run *is* passes through here: which children are admitted, planned, scored and counted,
and when the parameter servers are snapshotted. A child counts when its row is committed, and only then does its reward
reach a replica. After a crash the same calls come again; what is already in the journal is answered from it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas_cluster.cluster.children.pool import ChildPool, SpawnWorker
from nas_cluster.cluster.coordinator import planning
from nas_cluster.cluster.coordinator.admission import make_admissions
from nas_cluster.cluster.coordinator.commits import Writer
from nas_cluster.cluster.coordinator.phases import Phases, schedule_of
from nas_cluster.cluster.coordinator.scoring import Scoring
from nas_cluster.cluster.coordinator.snapshots import Snapshots
from nas_cluster.cluster.coordinator.totals import Totals
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
from nas_cluster.storage.database import StorageFull
from nas_cluster.storage.rows import ChildRow

__all__ = ["Coordinator"]


class Coordinator:
    """Searches in `directory` for one session, from construction to `close`."""

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
        self._writer = Writer(config, directory, clock, kind="search", wind_down=self._wind_down, on_beat=self._look)
        self._journal, self._commit = self._writer.journal, self._writer.commit
        self._totals = Totals(config, self._journal, clock)
        self._snapshots = Snapshots(config, self._journal, directory, self._writer.mirror)
        self._pool = ChildPool(
            spawn,
            workers,
            clock,
            slots_per_worker=slots_per_worker,
            retries=config.failures.retries,
            each="" if config.estimator.shares_process else config.topology.resources.in_words,
            on_event=self._writer.note,
            on_reports=lambda *reported: self._scoring.keep_reports(*reported),
        )
        schedule = schedule_of(config)
        self._phases: Phases | None = None
        if schedule is not None:
            self._phases = Phases(config, schedule, directory, self._writer, self._pool, clock)
        self._empty_shards: list[ShardClient] = []
        self._shards: list[ShardClient] = []
        """Those that have been given their weights."""
        self._awaited = ""
        self._admissions = make_admissions(config, self._journal, self._over)
        self._scoring = Scoring(config, self._writer, self._pool, self._totals, self._phases, clock)

    # -- start and end -------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the workers and the heartbeat. Raises RunError when another machine goes on with this run."""
        await self._writer.start()
        self._pool.start()

    async def connect(self, shards: list[ShardClient]) -> dict[int, int] | None:
        """Give these (empty) shards the newest good snapshot.

        Returns the number of each replica's next push, or None when there is no snapshot: then `initialise`.
        """
        await self._commit(lambda: None)  # whatever lost replicas had planned is in the journal now
        self._shards, self._empty_shards = [], shards
        self._admissions.reload()
        if self._phases is not None:
            self._phases.forget_minibatches()
        pushes = await self._snapshots.restore(shards)
        if pushes is not None:
            self._shards = shards
        return pushes

    async def initialise(self, weights: Mapping[str, NDArray[np.float32]]) -> dict[int, int]:
        """Give the shards of a new run their first weights and make them durable."""
        pushes = await self._snapshots.initialise(self._empty_shards, weights)
        self._shards = self._empty_shards
        return pushes

    async def stop(self, reason: str) -> None:
        """Admit no more children, give those in flight `failures.stop_grace`, drop what is left (a resumed run trains
        it), and let every waiter go. Asked again, it waits for the first to be done."""
        await self._writer.stop(reason)

    async def _wind_down(self) -> None:
        if self._writer.failure is None:
            await self._pool.drain(self._config.failures.stop_grace)
        await self._pool.close()
        await self._scoring.settle()
        await asyncio.gather(*(shard.halt() for shard in self._shards), return_exceptions=True)
        if self._phases is not None:
            await self._phases.stop()

    async def hurry(self) -> None:
        """Cut short what `stop` leaves to children in flight."""
        await self._pool.hurry()

    async def close(self, ended: str) -> Outcome:
        """Final snapshot and end of the session. `ended` is done unless the run was stopped or failed."""
        await self._pool.close()
        if self._shards:
            try:
                await self._snapshots.take(self._shards)
            except (StorageFull, PartLost):
                pass  # the journal has what the snapshot would have saved
            except Fenced as error:
                self._writer.fail(error)
                await self._writer.stop(str(error))
        progress = await self.progress()
        ended = await self._writer.close(ended)
        return Outcome(ended, self._writer.stopping or "the budget is used", progress)

    # -- admission -----------------------------------------------------------------------------------------------------

    async def admit(self, replica: int, update: int) -> Admission | None:
        """Leave to sample minibatch `update`, or None when the search is over or stopping."""
        if self._config.mode == "asynchronous":
            await self._pool.wait_below(2 * self._pool.slots)
        if self._writer.stopping is not None:
            return None
        admission = self._admissions.admit(replica, update)
        if admission is not None and self._phases is not None:
            try:
                place = self._admissions.place(admission, update)
                if not await self._phases.enter((replica, update), place, self._shards):
                    return None
            except Exception as error:
                self._writer.fail(error)
                return None
        return admission

    def _over(self) -> bool:
        return self._writer.stopping is not None or self._totals.budget_used()

    # -- children ------------------------------------------------------------------------------------------------------

    async def evaluate(self, request: BatchRequest) -> BatchResult | None:
        """Record a minibatch, have its children scored, and return their committed rewards; None when stopping."""
        if self._writer.failure is not None:
            raise self._writer.failure
        recorded = {
            row.child.child_id.index: row for row in self._journal.batch_children(request.replica, request.update)
        }
        rows = [
            recorded.get(i) or planning.planned(self._config, request, i, at=self._clock.now())
            for i in range(request.admission.count)
        ]
        if self._config.mode == "synchronous" and (indices := planning.differing(request, recorded)):
            about = {"replica": request.replica, "update": request.update, "indices": indices}
            self._writer.note("replay_differs", about)
        new = [row for row in rows if row.child.child_id.index not in recorded]
        try:
            if new:
                batch = planning.batch_of(request, at=self._clock.now())
                await self._commit(lambda: self._journal.plan(batch, new))
            done = await asyncio.gather(*(self._scoring.of(row) for row in rows))
        except RunStopped:
            return None
        return self._result(done)

    async def recorded(self, replica: int, update: int) -> BatchResult:
        """A minibatch of which some epochs were learned already: its rewards were committed before the first."""
        return self._result(self._journal.batch_children(replica, update))

    def _result(self, rows: Sequence[ChildRow]) -> BatchResult:
        update = rows[0].child.child_id.update
        return planning.to_learn_from(rows, learn=self._admissions.learns_from(update))

    async def applied(
        self, replica: int, update: int, learning_epoch: int, receipts: list[Receipt], scalars: dict[str, float]
    ) -> Admission | None:
        """A replica's gradient has reached all shards; snapshot the shards when it is time. After a minibatch's last
        gradient the answer is what `admit` says of the next one: one call less for each."""
        last = learning_epoch == self._config.strategy.learning_epochs - 1
        fresh = [receipt for receipt in receipts if receipt.verdict != "duplicate"]
        verdict = fresh[0].verdict if fresh else "applied"  # all had taken it, and then a crash lost this report
        staleness = max(receipt.staleness for receipt in receipts)
        await self._commit(
            lambda: self._journal.applied(
                replica,
                update,
                learning_epoch=learning_epoch,
                last=last,
                applied_at=self._clock.now(),
                staleness=staleness,
                verdict=verdict,
                scalars=scalars,
            )
        )
        if last and self._phases is not None:
            await self._phases.leave((replica, update))
        self._totals.update_applied([receipt.version for receipt in receipts], staleness, scalars)
        try:
            await self._snapshots.take_when_due(self._shards, min(receipt.version for receipt in receipts))
        except Fenced as error:
            self._writer.fail(error)
        except StorageFull:
            pass  # a later one will do
        return await self.admit(replica, update + 1) if last else None

    async def event(self, kind: str, detail: dict[str, Any]) -> None:
        """Record something that happened outside (a lost shard, a recovery)."""
        self._writer.note(kind, detail)

    def _look(self) -> None:
        """Say once which workers are awaited."""
        awaited, self._awaited = self._awaited, self._pool.awaited
        if self._awaited and not awaited:
            self._writer.note("workers_awaited", {"for": self._awaited})

    async def progress(self) -> Progress:
        """How the run stands."""
        progress = self._totals.progress(busy=self._pool.busy, slots=self._pool.slots, waiting=self._pool.waiting)
        return replace(progress, waits_for=self._pool.awaited, last_event=self._writer.last_event)
