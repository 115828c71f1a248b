"""From a planned child to its committed row: answered by the cache or by a worker, and only then told to anybody."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from nas_cluster.cluster.children.pool import ChildPool
from nas_cluster.cluster.coordinator import planning
from nas_cluster.cluster.coordinator.commits import Writer
from nas_cluster.cluster.coordinator.phases import Phases
from nas_cluster.cluster.coordinator.totals import Totals
from nas_cluster.config import JobConfig
from nas_cluster.core.clock import Clock
from nas_cluster.core.errors import RunStopped
from nas_cluster.core.evaluation import ChildId, Report
from nas_cluster.storage.rows import ChildRow

__all__ = ["Scoring", "TooManyFailures"]


class TooManyFailures(RunStopped):
    """So many children failed one after the other that the fault is hardly theirs."""


class Scoring:
    """Scores the children of one session, each once, whoever asks for it how often."""

    def __init__(
        self, config: JobConfig, writer: Writer, pool: ChildPool, totals: Totals, phases: Phases | None, clock: Clock
    ) -> None:
        self._config = config
        self._writer = writer
        self._pool = pool
        self._totals = totals
        self._phases = phases
        self._clock = clock
        self._under_way: dict[str, asyncio.Task[ChildRow]] = {}

    async def of(self, row: ChildRow) -> ChildRow:
        """The child's committed row. Asked again (by a restarted replica), it joins what is under way."""
        if row.done:
            return row
        name = str(row.child.child_id)
        if name not in self._under_way:
            task = asyncio.ensure_future(self._score(row))
            task.add_done_callback(lambda _: self._under_way.pop(name, None))
            self._under_way[name] = task
        return await asyncio.shield(self._under_way[name])

    async def settle(self) -> None:
        """Wait until what was scored is committed, and what will not be has been given up."""
        await asyncio.gather(*self._under_way.values(), return_exceptions=True)

    async def _score(self, row: ChildRow) -> ChildRow:
        journal, earlier = self._writer.journal, None
        reports: Sequence[Report] = ()
        if self._config.cache and self._phases is None:  # what children share changes, and their scores with it
            earlier = journal.find_scored(row.child.key)
        if earlier is not None:
            row = planning.cached(row, earlier, at=self._clock.now())
        else:
            shared = self._phases.state if self._phases is not None else None
            scored = await self._pool.evaluate(replace(row.child, shared=shared))
            row, reports = planning.scored(self._config, row, scored), scored.reports
        if await self._writer.commit(lambda: journal.done(row, reports)):
            self._totals.child_done(row)
            self._end_when_all_fail(row)
        return row

    def keep_reports(self, child_id: ChildId, attempt: int, reports: Sequence[Report]) -> None:
        """Record what a child says while it is at work; nobody waits for that."""
        self._writer.write_soon(lambda: self._writer.journal.add_reports(str(child_id), attempt, reports))

    def _end_when_all_fail(self, row: ChildRow) -> None:
        if self._totals.failed_in_a_row >= self._config.failures.max_in_a_row:
            assert row.evaluation is not None
            self._writer.fail(
                TooManyFailures(
                    f"{self._totals.failed_in_a_row} children failed in a row (failures.max_in_a_row); "
                    f"the last one: {row.evaluation.cause}: {row.evaluation.message}"
                )
            )
