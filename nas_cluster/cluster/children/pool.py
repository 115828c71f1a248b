"""The queue of children and the worker slots that serve it.

A slot takes the child that has waited longest, the moment it is free. A slot whose worker is lost gets a new worker;
the child goes back to the front of the queue when it may be tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import count

from nas_cluster.cluster.messages import Answer, PartLost, WorkerClient
from nas_cluster.core.clock import Clock
from nas_cluster.core.errors import NasClusterError, RunStopped
from nas_cluster.core.evaluation import Child, ChildId, Evaluation, Report

__all__ = ["ChildPool", "OnReports", "Scored", "SpawnWorker"]

SpawnWorker = Callable[[int], Awaitable[WorkerClient]]
OnReports = Callable[[ChildId, int, Sequence[Report]], None]
"""(child, attempt, its reports)"""

_RETRIED = {"worker_lost", "killed"}
"""Causes that are not the child's own."""
_ABSENT_SECONDS = 60.0
"""A worker that is not there after that is rarely slow to start."""
_RESPAWN_SECONDS = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0)


@dataclass(frozen=True)
class Scored:
    """One child's evaluation, by whom and when. reports: of its last attempt, those that came with the evaluation."""

    evaluation: Evaluation
    worker: str
    started_at: float
    finished_at: float
    attempts: int
    reports: tuple[Report, ...] = ()


@dataclass(order=True)
class _Waiting:
    rank: tuple[int, int]
    """Retried children first, then in order of arrival."""
    child: Child = field(compare=False)
    result: asyncio.Future[Scored] = field(compare=False)
    attempts: int = field(default=0, compare=False)


@dataclass
class ChildPool:
    """`workers` workers with `slots_per_worker` slots each, made by `spawn(worker_index)`."""

    spawn: SpawnWorker
    workers: int
    clock: Clock
    slots_per_worker: int = 1
    retries: int = 1
    each: str = ""
    """What a worker asks for, in words."""
    on_event: Callable[[str, dict[str, object]], None] = lambda kind, detail: None
    on_reports: OnReports = lambda child_id, attempt, reports: None
    """Called with what a child reports while it is at work."""
    busy: int = 0
    _queue: asyncio.PriorityQueue[_Waiting] = field(default_factory=asyncio.PriorityQueue)
    _arrivals: count[int] = field(default_factory=count)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _clients: dict[int, WorkerClient] = field(default_factory=dict)
    _ready: set[int] = field(default_factory=set)
    _running: dict[tuple[str, ChildId], int] = field(default_factory=dict)
    """Attempts of the children at work, by worker."""
    _taken: asyncio.Condition = field(default_factory=asyncio.Condition)
    _broken: BaseException | None = None
    _incomplete_since: float | None = None
    _draining: bool = False
    _hurried: bool = False

    @property
    def absent(self) -> int:
        """Workers that are not there: not placed yet, starting, or lost and not yet replaced."""
        return self.workers - len(self._ready)

    @property
    def awaited(self) -> str:
        """The workers that were not all there for a minute, in words, until all are: nobody has, or brings, what they
        ask for. "" when nothing is awaited."""
        since = self._incomplete_since
        if since is None or self.clock.monotonic() - since < _ABSENT_SECONDS:
            return ""
        return f"{self.absent} of {self.workers} workers" + (f": {self.each} each" if self.each else "")

    @property
    def slots(self) -> int:
        """Children that can run at once."""
        return self.workers * self.slots_per_worker

    @property
    def waiting(self) -> int:
        """Children in the queue, not yet running."""
        return self._queue.qsize()

    def start(self) -> None:
        """Start the workers in the background; children may be queued at once."""
        self._incomplete_since = self.clock.monotonic()
        self._tasks = [asyncio.create_task(self._keep_worker(index)) for index in range(self.workers)]

    async def evaluate(self, child: Child) -> Scored:
        """Queue a child and wait for its evaluation.

        Raises RunStopped when the pool is closed meanwhile, DataError when no worker can read the dataset.
        """
        if self._broken is not None:
            raise self._broken
        result: asyncio.Future[Scored] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait(_Waiting((1, next(self._arrivals)), child, result))
        return await result

    async def all_ready(self) -> list[WorkerClient]:
        """Wait until every worker has started; all of them, by index. Raises what `evaluate` raises."""
        async with self._taken:
            await self._taken.wait_for(lambda: len(self._ready) == self.workers or self._broken is not None)
        if self._broken is not None:
            raise self._broken
        return [self._clients[index] for index in sorted(self._ready)]

    async def restart(self) -> None:
        """End all workers and start new ones. No child may be running."""
        await self._end_workers()
        if self._broken is None:
            self.start()

    async def wait_below(self, waiting: int) -> None:
        """Return once fewer than `waiting` children are queued (back-pressure)."""
        async with self._taken:
            await self._taken.wait_for(lambda: self.waiting < waiting or self._broken is not None)

    async def drain(self, seconds: float) -> None:
        """Start no more children; return when none is running, after so many seconds, or on `hurry`."""
        self._draining = True
        async with self._taken:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._taken.wait_for(self._is_drained), seconds)

    def _is_drained(self) -> bool:
        return not self.busy or self._hurried or self._broken is not None

    async def hurry(self) -> None:
        """Let `drain` wait no longer, now or later."""
        self._hurried = True
        async with self._taken:
            self._taken.notify_all()

    async def close(self) -> None:
        """Drop queued and running children and end the workers."""
        await self._break(RunStopped("the run is stopping"))
        await self._end_workers()

    async def _end_workers(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(client.close() for client in self._clients.values()), return_exceptions=True)

    async def _break(self, error: BaseException) -> None:
        """No child can be scored any more: whoever waits is told why."""
        self._broken = self._broken or error
        while not self._queue.empty():
            item = self._queue.get_nowait()
            if not item.result.done():
                item.result.set_exception(self._broken)
        async with self._taken:
            self._taken.notify_all()

    async def _keep_worker(self, index: int) -> None:
        """Serve from one worker; when it is lost, from the next one."""
        failures = 0
        while self._broken is None:
            try:
                await self.clock.sleep(_RESPAWN_SECONDS[min(failures, len(_RESPAWN_SECONDS) - 1)])
                failures += 1
                client = self._clients[index] = await self.spawn(index)
                await client.start()
                await self._set_ready(index)
                async with asyncio.TaskGroup() as group:
                    for _ in range(self.slots_per_worker):
                        group.create_task(self._serve(client, f"worker-{index}"))
                    group.create_task(self._fetch_reports(client, f"worker-{index}"))
                    failures = 0
            except* PartLost as lost:
                self.on_event("worker_lost", {"worker": index, "reason": str(lost.exceptions[0])})
            except* NasClusterError as error:
                await self._break(error.exceptions[0])
            finally:
                self._ready.discard(index)
                if self._incomplete_since is None:
                    self._incomplete_since = self.clock.monotonic()
            if (lost_client := self._clients.get(index)) is not None:  # it may live on where nobody reaches it
                await asyncio.gather(lost_client.close(), return_exceptions=True)

    async def _set_ready(self, index: int) -> None:
        self._ready.add(index)
        if not self.absent:
            self._incomplete_since = None
        async with self._taken:
            self._taken.notify_all()

    async def _fetch_reports(self, client: WorkerClient, name: str) -> None:
        """Hand on what its children report while they are at work. Of one that is done by then, the answer had all of
        it. That the worker is lost is for its slots to notice, which know what that means for their children."""
        with contextlib.suppress(PartLost):
            while True:
                found: dict[ChildId, list[Report]] = {}
                for child_id, report in await client.reports():
                    found.setdefault(child_id, []).append(report)
                for child_id, reports in found.items():
                    attempt = self._running.get((name, child_id))
                    if attempt is not None:
                        self.on_reports(child_id, attempt, reports)

    async def _serve(self, client: WorkerClient, name: str) -> None:
        """One slot: take, score, answer, for ever. Raises PartLost when the worker is gone."""
        while True:
            item = await self._queue.get()
            if self._draining:  # it waits for the end of the run, with all that are queued
                self._queue.put_nowait(item)
                await asyncio.Event().wait()
            async with self._taken:
                self._taken.notify_all()
            item.attempts += 1
            started_at = self.clock.now()
            self.busy += 1
            place = (name, item.child.child_id)
            self._running[place] = item.attempts
            lost: PartLost | None = None
            try:
                answer = await client.evaluate(item.child)
            except PartLost as error:
                lost = error
                answer = Answer(Evaluation.failure("worker_lost", str(error), self.clock.now() - started_at))
            except asyncio.CancelledError:
                # The pool is closing, or another slot of this worker found it lost: then this child waits again.
                if self._broken is None:
                    self._requeue(item, "worker_lost")
                elif not item.result.done():
                    item.result.set_exception(self._broken)
                raise
            finally:
                self.busy -= 1
                del self._running[place]
                if self._draining:
                    await self._say_drained()
            evaluation, reports = answer.evaluation, answer.reports
            if evaluation.cause in _RETRIED and item.attempts <= self.retries and self._broken is None:
                if reports:
                    self.on_reports(item.child.child_id, item.attempts, reports)
                self._requeue(item, evaluation.cause)
            elif not item.result.done():
                item.result.set_result(Scored(evaluation, name, started_at, self.clock.now(), item.attempts, reports))
            if lost is not None:
                raise lost

    async def _say_drained(self) -> None:
        async with self._taken:
            self._taken.notify_all()

    def _requeue(self, item: _Waiting, cause: str | None) -> None:
        self.on_event("child_retried", {"child": str(item.child.child_id), "cause": cause, "attempt": item.attempts})
        item.rank = (0, item.rank[1])
        self._queue.put_nowait(item)
