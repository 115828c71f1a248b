"""Many writers, few commits: all writes asked for while the last commit ran go into the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from nas_cluster.storage.journal import Journal

__all__ = ["GroupCommit"]

T = TypeVar("T")


class GroupCommit:
    """Awaitable writes to a journal. An awaited write is durable when it returns."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._pending: list[tuple[Callable[[], Any], asyncio.Future[Any]]] = []
        self._scheduled = False

    async def __call__(self, write: Callable[[], T]) -> T:
        """Run `write` inside the next transaction; its value once that is committed."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._pending.append((write, future))
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._commit)
        return await future

    def _commit(self) -> None:
        batch, self._pending, self._scheduled = self._pending, [], False
        try:
            with self._journal.transaction():
                values = [write() for write, _ in batch]
        except Exception as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), value in zip(batch, values, strict=True):
            if not future.done():
                future.set_result(value)
