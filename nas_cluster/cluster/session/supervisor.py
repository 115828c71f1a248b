"""The supervisor: starts the parts of a run, watches them, and starts them again when one is lost.

There is one way to recover, the same as `resume`: end all shards and replicas, restore new ones from the newest
snapshot, and let the replicas go over the journal. The coordinator and its workers live on, so no child is trained
twice. The processes of the others live on too, emptied, and carry the new ones. The loss of the coordinator itself ends
the session; the run can be resumed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from nas_cluster.cluster.messages import CoordinatorClient, Outcome, PartLost, Progress, ReplicaClient
from nas_cluster.cluster.session.backend import Backend
from nas_cluster.cluster.session.stop import Stop
from nas_cluster.config import JobConfig
from nas_cluster.core.errors import RunStopped

__all__ = ["Supervisor", "may_recover", "until_it_raises"]

T = TypeVar("T")

_PROGRESS_SECONDS = 0.5


def may_recover(restarts: int, max_restarts: int, *, coordinator_alive: bool) -> bool:
    """Whether a lost part is worth another try."""
    return coordinator_alive and restarts < max_restarts


def until_it_raises(callback: Callable[[T], None]) -> Callable[[T], None]:
    """The same, but not called any more once it has raised: that is no reason to end a run."""
    raised = False

    def tell(news: T) -> None:
        nonlocal raised
        if not raised:
            try:
                callback(news)
            except Exception:
                raised = True
                logging.getLogger(__name__).exception("a callback raised, and is not called any more")

    return tell


class Supervisor:
    """One session of one run."""

    def __init__(
        self,
        config: JobConfig,
        directory: Path,
        backend: Backend,
        on_progress: Callable[[Progress], None] = lambda progress: None,
    ) -> None:
        self._config = config
        self._directory = directory
        self._backend = backend
        self._tell = until_it_raises(on_progress)
        self._restarts = 0

    async def run(self, stop: Stop) -> Outcome:
        """Search until the budget is used, a stop is asked for, or the run cannot go on.

        Raises UserError when the input turns out to be wrong (a dataset that a worker cannot read), and RunStopped
        when the coordinator is lost.
        """
        try:
            return await self._run(stop)
        except PartLost as lost:
            raise RunStopped(f"the coordinator was lost, nothing committed is: {lost}") from lost

    async def _run(self, stop: Stop) -> Outcome:
        coordinator = await self._backend.start_coordinator(self._config, self._directory)
        await coordinator.start()
        beside = [asyncio.create_task(self._show(coordinator)), asyncio.create_task(self._pass_on(stop, coordinator))]
        ended = "failed"
        try:
            while not await self._learn(coordinator, stop):
                pass
            ended = "done"
        except RunStopped as error:
            await coordinator.stop(str(error))
        finally:
            for task in beside:
                task.cancel()
            outcome = await coordinator.close(stop.ended if stop.reason else ended)
            await self._backend.end_learners()
        self._tell(outcome.progress)
        return outcome

    async def _learn(self, coordinator: CoordinatorClient, stop: Stop) -> bool:
        """Start shards and replicas and let them work. True when they are done, False to start them again.

        Raises RunStopped when a stop is asked for before they have started, which may take as long as an autoscaler.
        """
        try:
            starting = asyncio.ensure_future(self._start_learners(coordinator))
            asked = asyncio.create_task(stop.wait())
            try:
                await asyncio.wait([starting, asked], return_when=asyncio.FIRST_COMPLETED)
                if not starting.done():
                    raise RunStopped(stop.reason)
            finally:
                starting.cancel()
                asked.cancel()
            await self._learn_once(*starting.result())
        except ExceptionGroup as group:
            lost = group.subgroup(PartLost)
            if lost is None:
                raise group.exceptions[0] from group
            reason = str(lost.exceptions[0])
        except PartLost as error:
            reason = str(error)
        else:
            return True
        try:
            await coordinator.event("part_lost", {"reason": reason, "restarts": self._restarts})
            alive = True
        except PartLost:
            alive = False
        if not may_recover(self._restarts, self._config.failures.max_restarts, coordinator_alive=alive):
            raise RunStopped(f"a part was lost and not started again ({self._restarts} restarts): {reason}")
        self._restarts += 1
        await self._backend.clear_learners()
        return False

    async def _start_learners(self, coordinator: CoordinatorClient) -> tuple[dict[int, ReplicaClient], dict[int, int]]:
        """Shards restored; every replica, and the number of its next push."""
        config, backend = self._config, self._backend
        shards = await backend.start_shards(config)
        indices = list(range(config.topology.controller_replicas))
        replicas = dict(zip(indices, await backend.start_replicas(config, indices, shards, coordinator), strict=True))
        updates = await coordinator.connect(list(shards))
        if updates is None:
            updates = await coordinator.initialise(await replicas[0].initial_weights())
        leftover = sorted(set(updates) - set(indices))
        replicas |= dict(
            zip(leftover, await backend.start_replicas(config, leftover, shards, coordinator), strict=True)
        )
        return replicas, updates

    async def _learn_once(self, replicas: dict[int, ReplicaClient], updates: dict[int, int]) -> None:
        """Every replica run until no more children are admitted."""
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(self._backend.watch_learners())
            runs = [group.create_task(replica.run(updates[index])) for index, replica in replicas.items()]
            await asyncio.wait(runs)
            watch.cancel()

    async def _show(self, coordinator: CoordinatorClient) -> None:
        """Show progress twice a second."""
        with suppress(PartLost):  # the loss shows where the replicas are awaited
            while True:
                self._tell(await coordinator.progress())
                await asyncio.sleep(_PROGRESS_SECONDS)

    async def _pass_on(self, stop: Stop, coordinator: CoordinatorClient) -> None:
        """Pass on a request to stop, and that it is urgent."""
        await stop.wait()
        with suppress(PartLost):
            stopping = asyncio.create_task(coordinator.stop(stop.reason))
            try:
                hurried = asyncio.create_task(stop.wait_hurried())
                await asyncio.wait([stopping, hurried], return_when=asyncio.FIRST_COMPLETED)
                if hurried.done():
                    await coordinator.hurry()
                await stopping
            finally:
                stopping.cancel()
                hurried.cancel()
