"""A child's reports on their way to the journal: thinned where they are made, kept where they wait to be fetched."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from nas_cluster.core.evaluation import ChildId, Report

__all__ = ["Outbox", "Thinned"]

_PER_SECOND = 20
_AT_ONCE = 20
_MOST_STEPS = 10_000
"""Of one child."""
_WAIT_SECONDS = 1.0
"""Reports of a child that is done by then travel with its answer."""


class Thinned:
    """Hands the reports of one child on, at most so many a second: the newest is never lost, older ones may be.

    Where threads report out of order, the newest is both the last that came and that of the highest step. Twenty may
    come at once, so that a child of a few short epochs loses none.
    """

    def __init__(self, send: Callable[[Report], None]) -> None:
        self._send = send
        self._lock = threading.Lock()
        self._last: Report | None = None
        self._highest: Report | None = None
        self._waiting: list[Report] = []
        """None, one or both of them."""
        self._allowed = float(_AT_ONCE)
        self._looked = time.monotonic()
        self._sent: set[int] = set()

    def add(self, report: Report) -> None:
        """Send it now, or when it is time."""
        with self._lock:
            for known in (self._highest, self._last):
                if known is not None and known.step == report.step:
                    report = replace(report, metrics={**known.metrics, **report.metrics})
            self._last = report
            if self._highest is None or report.step >= self._highest.step:
                self._highest = report
            self._waiting = [one for one in self._waiting if one is self._highest] + [report]
            self._send_if(self._due())

    def look(self) -> None:
        """Send what waits, if it is time."""
        if self._waiting:
            with self._lock:
                self._send_if(self._due())

    def flush(self) -> None:
        """Send what waits: the child is done."""
        with self._lock:
            self._send_if(True)

    def _due(self) -> bool:
        now = time.monotonic()
        self._allowed = min(_AT_ONCE, self._allowed + _PER_SECOND * (now - self._looked))
        self._looked = now
        return self._allowed >= 1

    def _send_if(self, due: bool) -> None:
        if not due:
            return
        waiting, self._waiting = self._waiting, []
        for report in waiting:
            self._allowed -= 1
            self._sent.add(report.step)
            if len(self._sent) <= _MOST_STEPS:
                self._send(report)


class Outbox:
    """Reports of a worker's children until somebody has them for certain.

    What `fetch` gave is kept until it is asked again: an answer that was lost on its way then costs nothing, as what is
    not known to have arrived goes along with the child's answer.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[tuple[ChildId, Report]] = []
        self._fetched: list[tuple[ChildId, Report]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._arrived = asyncio.Event()

    def add(self, child_id: ChildId, report: Report) -> None:
        """From any thread."""
        with self._lock:
            self._waiting.append((child_id, report))
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # nobody fetches any more
                self._loop.call_soon_threadsafe(self._arrived.set)

    def take(self, child_id: ChildId) -> tuple[Report, ...]:
        """What is not known to have arrived of this child, which is done."""
        with self._lock:
            both = [*self._fetched, *self._waiting]
            self._fetched = [item for item in self._fetched if item[0] != child_id]
            self._waiting = [item for item in self._waiting if item[0] != child_id]
        return tuple(report for found, report in both if found == child_id)

    async def fetch(self) -> list[tuple[ChildId, Report]]:
        """Wait until there are reports that have waited for a second. What was fetched before has arrived."""
        self._loop = asyncio.get_running_loop()
        with self._lock:
            self._fetched = []
        while True:
            with self._lock:
                self._arrived.clear()
                waits = bool(self._waiting)
            if not waits:
                await self._arrived.wait()
            await asyncio.sleep(_WAIT_SECONDS)
            with self._lock:
                if self._waiting:
                    self._fetched, self._waiting = self._waiting, []
                    return list(self._fetched)
