"""The single writer of a run, for one session: many writers' rows in few commits, the claim and the copies where the
run is mirrored, the heartbeat. A search and what follows it write through one of these, one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from nas_cluster.config import JobConfig
from nas_cluster.core.clock import Clock
from nas_cluster.core.errors import Fenced, RunStopped
from nas_cluster.storage.database import StorageFull
from nas_cluster.storage.journal import Journal
from nas_cluster.storage.layout import is_remote
from nas_cluster.storage.mirror import Mirror
from nas_cluster.storage.rows import SessionKind
from nas_cluster.storage.tensorboard import TensorBoard

__all__ = ["GroupCommit", "Writer"]

T = TypeVar("T")

_RETRY_SECONDS = 1.0
_HEARTBEAT_SECONDS = 5.0


class Writer:
    """Holds the run in `directory` from construction to `close`. `start` it before anything else is done.

    wind_down: awaited once, when the session is told to stop or cannot go on; it lets every waiter go. on_beat: called
    every five seconds.
    """

    def __init__(
        self,
        config: JobConfig,
        directory: Path,
        clock: Clock,
        *,
        kind: SessionKind,
        wind_down: Callable[[], Coroutine[Any, Any, None]],
        on_beat: Callable[[], None] = lambda: None,
    ) -> None:
        self._config = config
        self._directory = directory
        self._clock = clock
        self._wind_down = wind_down
        self._on_beat = on_beat
        self._opened = clock.monotonic()
        self.journal = Journal.open(directory, kind=kind)
        if kind != "retrain" and self.journal.config != config.to_dict():
            self.journal.set_config(config.to_dict(), reason="continued with another config")
        self.commit = GroupCommit(self.journal, self._on_full)
        self.stopping: str | None = None
        """Why no more is begun."""
        self.failure: BaseException | None = None
        """What made it impossible to go on."""
        self._stopped: asyncio.Future[None] | None = None
        self.last_event = ""
        self._mirror = Mirror(config.storage_path, config.name) if is_remote(config.storage_path) else None
        self._mirroring = asyncio.Lock()
        self._to_mirror = kind != "search"  # a search has nothing that could be gone on with before its first snapshot
        self._tensorboard = TensorBoard(directory)
        self._paused_at = 0.0
        self._background: set[asyncio.Task[Any]] = set()

    @property
    def seconds(self) -> float:
        """Seconds this session has run."""
        return self._clock.monotonic() - self._opened

    async def start(self) -> None:
        """Claim the run where it is mirrored, and begin the heartbeat. Raises RunError when another machine has it."""
        if self._mirror is not None:
            await asyncio.to_thread(self._mirror.claim, self._directory)
        self.spawn(self._heartbeat())
        self.spawn(self._plot())

    async def stop(self, reason: str) -> None:
        """Wind down, once; whoever asks again waits for it. The first reason counts."""
        if self._stopped is None:
            self.stopping = self.stopping or reason
            self.commit.give_up()
            self._stopped = asyncio.ensure_future(self._wind_down())
        await asyncio.shield(self._stopped)

    def fail(self, error: BaseException) -> None:
        """It cannot go on: stop, with this error as the reason."""
        if self.failure is None:
            self.failure, self.stopping = error, self.stopping or str(error)
            self.spawn(self.stop(str(error)))

    async def close(self, ended: str) -> str:
        """End the session: the last rows, and the last copy of what has changed. How it ended: `ended`, unless that is
        done and the session was stopped or failed. Raises RunStopped when the last copy could not be made."""
        if self.stopping is not None and ended == "done":
            ended = "failed" if self.failure else "stopped"
        async with self._mirroring:  # a copy that is being made goes on in its thread, whoever is cancelled
            pass
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        with suppress(StorageFull):
            self.journal.heartbeat(self.seconds)
            self.journal.close(ended)
        self.journal.close()
        await asyncio.to_thread(self._tensorboard.close)
        try:
            if self._to_mirror and not isinstance(self.failure, Fenced):
                await self.mirror(last=True)
        finally:
            if self._mirror is not None:
                await asyncio.to_thread(self._mirror.release)
        return ended

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """A task beside the work, whose failure ends the session instead of being forgotten."""

        def finished(task: asyncio.Task[Any]) -> None:
            self._background.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                self.fail(error)

        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(finished)

    def note(self, kind: str, detail: Mapping[str, Any]) -> None:
        """Record something that happened to the run."""
        self.last_event = f"{kind}: " + ", ".join(f"{key} {value}" for key, value in detail.items())
        try:
            self.journal.event(kind, **detail)
        except StorageFull:
            self.spawn(self.commit(lambda: self.journal.event(kind, **detail)))

    async def mirror(self, *, last: bool = False) -> None:
        """Copy the run to where it is mirrored, if it is; whoever writes goes on meanwhile.

        When that place is out of reach the next copy makes up for it; raises RunStopped when this is the last one.
        """
        if self._mirror is None:
            return
        self._to_mirror = True
        async with self._mirroring:
            try:
                await asyncio.to_thread(self._mirror.push, self._directory)
            except OSError as error:
                if last:
                    raise RunStopped(f"the run could not be copied to {self._config.storage_path}: {error}") from error
                self.note("mirror_failed", {"reason": str(error)})

    def write_soon(self, write: Callable[[], object]) -> None:
        """A write that goes along with the next commit, and that a full disk may cost."""

        async def commit() -> None:
            with suppress(StorageFull):
                await self.commit(write)

        self.spawn(commit())

    def mirror_soon(self) -> None:
        """Begin a copy, unless one is being made: the next one, or the last, has what has come meanwhile."""
        if self._mirror is not None and not self._mirroring.locked():
            self.spawn(self.mirror())

    async def _heartbeat(self) -> None:
        while True:
            await self._clock.sleep(_HEARTBEAT_SECONDS)
            self._on_beat()
            await self.commit(lambda: self.journal.heartbeat(self.seconds))
            if self._mirror is not None:
                with suppress(OSError):  # shared storage is out of reach, perhaps only for now
                    await asyncio.to_thread(self._mirror.check)

    async def _plot(self) -> None:
        while True:
            await self._clock.sleep(_HEARTBEAT_SECONDS)
            await asyncio.to_thread(self._tensorboard.follow)

    def _on_full(self, reason: str | None) -> None:
        """The disk is full: everything waits for the next commit, children in flight go on. Or it has room again."""
        if reason is not None:
            self._paused_at = self._clock.monotonic()
            self.last_event = f"paused until there is room on the disk: {reason}"
        else:
            self.note("disk_was_full", {"seconds": round(self._clock.monotonic() - self._paused_at, 1)})


class GroupCommit:
    """Awaitable writes to a journal. An awaited write is durable when it returns.

    A full disk delays it, for as long as it takes: then nothing goes on, and nothing is lost. `on_full` is called with
    the reason when that begins, and with None when it is over.
    """

    def __init__(self, journal: Journal, on_full: Callable[[str | None], None] = lambda reason: None) -> None:
        self._journal = journal
        self._on_full = on_full
        self._pending: list[tuple[Callable[[], Any], asyncio.Future[Any]]] = []
        self._scheduled = False
        self._full = False
        self._patient = True

    async def __call__(self, write: Callable[[], T]) -> T:
        """Run `write` inside the next transaction; its value once that is committed. Raises StorageFull only after
        `give_up`. A write may be run several times, each time from the same state."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._pending.append((write, future))
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._commit)
        return await future

    def give_up(self) -> None:
        """Wait for room no longer: the run is stopping. What waits, and what comes, is tried once more."""
        self._patient = False
        if self._full:
            self._commit()

    def _commit(self) -> None:
        batch, self._pending, self._scheduled = self._pending, [], False
        try:
            with self._journal.transaction():
                values = [write() for write, _ in batch]
        except StorageFull as error:
            if self._patient:
                self._pending = batch + self._pending
                self._scheduled = True
                asyncio.get_running_loop().call_later(_RETRY_SECONDS, self._commit)
                if not self._full:
                    self._full = True
                    self._on_full(str(error))
            else:
                _fail(batch, error)
            return
        except Exception as error:
            _fail(batch, error)
            return
        for (_, future), value in zip(batch, values, strict=True):
            if not future.done():
                future.set_result(value)
        if self._full:
            self._full = False
            self._on_full(None)


def _fail(batch: list[tuple[Callable[[], Any], asyncio.Future[Any]]], error: Exception) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)
