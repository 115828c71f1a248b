"""The supervisor: starts the parts of a run, watches them, and starts them again when one is lost.

    STARTING ──▶ RUNNING ──▶ ENDING ──▶ ENDED
        ▲           │
        └─RECOVERING┘

There is one way to recover, the same as `resume`: end all shards and replicas, restore new ones from the newest
snapshot, and let the replicas go over the journal. The coordinator and its workers live on, so no child is trained
twice. The processes of the others live on too, emptied, and carry the new ones. The loss of the coordinator itself ends
the session; the run can be resumed.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path

from nas_cluster.cluster.messages import CoordinatorClient, Outcome, PartLost, Progress, ReplicaClient
from nas_cluster.cluster.wiring import Wiring
from nas_cluster.config import JobConfig
from nas_cluster.core.errors import RunStopped
from nas_cluster.storage.layout import STOP

__all__ = ["State", "Stop", "Supervisor", "may_recover", "stop_on_request"]

_PROGRESS_SECONDS = 0.5
_STOP_SECONDS = 0.5
"""How often a run looks whether it was asked to stop."""


class State(Enum):
    """Where a session stands."""

    STARTING = "starting"
    RUNNING = "running"
    RECOVERING = "recovering"
    ENDING = "ending"
    ENDED = "ended"


_LEGAL = {
    State.STARTING: {State.RUNNING, State.RECOVERING, State.ENDING},
    State.RUNNING: {State.RECOVERING, State.ENDING},
    State.RECOVERING: {State.STARTING, State.ENDING},
    State.ENDING: {State.ENDED},
    State.ENDED: set(),
}


class Stop:
    """A request to stop from outside (a signal). `ended` says how the session is then recorded."""

    def __init__(self) -> None:
        self._asked = asyncio.Event()
        self._hurried = asyncio.Event()
        self.ended = "stopped"
        self.reason = ""

    def ask(self, reason: str, ended: str) -> None:
        """Ask for a stop; the first reason counts. Interrupted once more, it does not wait for children in flight."""
        if not self._asked.is_set():
            self.reason, self.ended = reason, ended
            self._asked.set()
        elif ended == "interrupted":
            self._hurried.set()

    async def wait(self) -> None:
        """Return once a stop was asked for."""
        await self._asked.wait()

    async def wait_hurried(self) -> None:
        """Return once it was asked for again, by somebody who has no patience."""
        await self._hurried.wait()


@contextmanager
def stop_on_request(directory: Path) -> Iterator[Stop]:
    """A Stop that SIGINT (interrupted), SIGTERM and a file in the run's directory (stopped) ask for; only the main
    thread can receive signals."""
    stop = Stop()
    (directory / STOP).unlink(missing_ok=True)
    watch = asyncio.create_task(_watch_stop_file(directory / STOP, stop))
    signals = {signal.SIGINT: "interrupted", signal.SIGTERM: "stopped"}
    if threading.current_thread() is not threading.main_thread():
        signals = {}
    loop = asyncio.get_running_loop()
    for number, ended in signals.items():
        loop.add_signal_handler(number, stop.ask, f"{number.name} received", ended)
    try:
        yield stop
    finally:
        watch.cancel()
        for number in signals:
            loop.remove_signal_handler(number)


async def _watch_stop_file(path: Path, stop: Stop) -> None:
    while not path.exists():
        await asyncio.sleep(_STOP_SECONDS)
    path.unlink(missing_ok=True)
    stop.ask("nas-cluster stop", "stopped")


def may_recover(restarts: int, max_restarts: int, *, coordinator_alive: bool) -> bool:
    """Whether a lost part is worth another try."""
    return coordinator_alive and restarts < max_restarts


class Supervisor:
    """One session of one run."""

    def __init__(
        self,
        config: JobConfig,
        directory: Path,
        wiring: Wiring,
        on_progress: Callable[[Progress], None] = lambda progress: None,
    ) -> None:
        self._config = config
        self._directory = directory
        self._wiring = wiring
        self._on_progress: Callable[[Progress], None] | None = on_progress
        self._restarts = 0
        self.state = State.STARTING

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
        coordinator = await self._wiring.start_coordinator(self._config, self._directory)
        await coordinator.start()
        beside = [asyncio.create_task(self._show(coordinator)), asyncio.create_task(self._pass_on(stop, coordinator))]
        ended = "failed"
        try:
            while not await self._learn(coordinator, stop):
                self._enter(State.STARTING)
            ended = "done"
        except RunStopped as error:
            await coordinator.stop(str(error))
        finally:
            for task in beside:
                task.cancel()
            self._enter(State.ENDING)
            outcome = await coordinator.close(stop.ended if stop.reason else ended)
            await self._wiring.end_learners()
            self._enter(State.ENDED)
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
        self._enter(State.RECOVERING)
        try:
            await coordinator.event("part_lost", {"reason": reason, "restarts": self._restarts})
            alive = True
        except PartLost:
            alive = False
        if not may_recover(self._restarts, self._config.failures.max_restarts, coordinator_alive=alive):
            raise RunStopped(f"a part was lost and not started again ({self._restarts} restarts): {reason}")
        self._restarts += 1
        await self._wiring.clear_learners()
        return False

    async def _start_learners(self, coordinator: CoordinatorClient) -> tuple[dict[int, ReplicaClient], dict[int, int]]:
        """Shards restored; every replica, and the number of its next push."""
        config, wiring = self._config, self._wiring
        shards = await wiring.start_shards(config)
        indices = list(range(config.topology.controller_replicas))
        replicas = dict(zip(indices, await wiring.start_replicas(config, indices, shards, coordinator), strict=True))
        updates = await coordinator.connect(list(shards))
        if updates is None:
            updates = await coordinator.initialise(await replicas[0].initial_weights())
        leftover = sorted(set(updates) - set(indices))
        replicas |= dict(zip(leftover, await wiring.start_replicas(config, leftover, shards, coordinator), strict=True))
        return replicas, updates

    async def _learn_once(self, replicas: dict[int, ReplicaClient], updates: dict[int, int]) -> None:
        """Every replica run until no more children are admitted."""
        self._enter(State.RUNNING)
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(self._wiring.watch_learners())
            runs = [group.create_task(replica.run(updates[index])) for index, replica in replicas.items()]
            await asyncio.wait(runs)
            watch.cancel()

    async def _show(self, coordinator: CoordinatorClient) -> None:
        """Show progress twice a second."""
        with suppress(PartLost):  # the loss shows where the replicas are awaited
            while True:
                self._tell(await coordinator.progress())
                await asyncio.sleep(_PROGRESS_SECONDS)

    def _tell(self, progress: Progress) -> None:
        """Call `on_progress`, until it raises: that is no reason to end a search."""
        if self._on_progress is not None:
            try:
                self._on_progress(progress)
            except Exception:
                self._on_progress = None
                logging.getLogger(__name__).exception("on_progress raised, and is not called any more")

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

    def _enter(self, state: State) -> None:
        if state not in _LEGAL[self.state]:
            raise AssertionError(f"{self.state.value} cannot become {state.value}")
        self.state = state
