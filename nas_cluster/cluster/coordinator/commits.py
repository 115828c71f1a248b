"""Many writers, few commits: all writes asked for while the last commit ran go into the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from nas_cluster.storage.journal import Journal, StorageFull

__all__ = ["GroupCommit"]

T = TypeVar("T")

_RETRY_SECONDS = 1.0


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
