"""Leases between a part and its owner, for the losses that nobody is told of: a network that was cut, a hung node.

The owner (the supervisor for shards, replicas and the coordinator; the coordinator for workers) asks for a beat every
second. A beat renews the lease. The owner that gets no answer for `PATIENCE_SECONDS` takes the part for lost and
replaces it; the part that is asked no more for `LEASE_SECONDS` ends itself: no orphan holds a card on the far side of
a cut. Neither compares clocks: both measure silence, each on its own monotonic clock. What an orphan still finishes
cannot count twice, since only its owner can commit it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable

from nas_cluster.core.clock import Clock, SystemClock

__all__ = ["BEAT_SECONDS", "LEASE_SECONDS", "PATIENCE_SECONDS", "Lease", "Unanswered", "until_lost"]

BEAT_SECONDS = 1.0
PATIENCE_SECONDS = 15.0
"""Longer than what TCP needs to get over an outage of 5 s (its sixth transmission comes after 6.2 s)."""
LEASE_SECONDS = 30.0
"""Longer than an owner's patience: one that is only slow must not find its parts gone."""
_ASLEEP_SECONDS = 5.0
_LATE_SECONDS = 0.5
"""A measurement so much later than intended says that the one who measures was stopped, and nothing of the other."""
_GRACE_SECONDS = 5.0
"""What the other one has from then on to be heard."""


class Unanswered(Exception):
    """A beat found nobody, which says nothing yet: the connection may come back."""


class Lease:
    """What a part holds: when it was renewed once and then not for `seconds`, `on_lapse` is called, once, in a thread
    of its own, whatever the part's other threads are at."""

    def __init__(
        self,
        on_lapse: Callable[[], None],
        seconds: float = LEASE_SECONDS,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._on_lapse = on_lapse
        self._seconds = seconds
        self._monotonic = monotonic
        self._sleep = sleep
        self._renewed: float | None = None

    def renew(self) -> None:
        """The owner is there."""
        first = self._renewed is None
        self._renewed = self._monotonic()
        if first:
            threading.Thread(target=self.keep, name="lease", daemon=True).start()

    def keep(self) -> None:
        """Wait until the lease has lapsed, and say so."""
        assert self._renewed is not None
        looked = self._monotonic()
        while True:
            self._sleep(BEAT_SECONDS)
            now = self._monotonic()
            if now - looked > _ASLEEP_SECONDS:  # this process was stopped, and its owner's beats with it
                self._renewed = now
            looked = now
            if now - self._renewed > self._seconds:
                self._on_lapse()
                return


async def until_lost(
    beat: Callable[[], Awaitable[object]], seconds: float = PATIENCE_SECONDS, clock: Clock | None = None
) -> str:
    """What an owner does: ask for beats until none was answered for `seconds`; returns how long nobody answered.

    beat: raises Unanswered when it reached nobody; anything else it raises says that the part is gone, and is raised.
    """
    clock = clock or SystemClock()
    answered = clock.monotonic()
    while True:
        asked, due = clock.monotonic(), answered + seconds
        try:
            await asyncio.wait_for(beat(), due - asked)
            answered = asked
        except (TimeoutError, Unanswered):
            now = clock.monotonic()
            if now - max(asked, due) > _LATE_SECONDS:  # this process was stopped; an answer may be waiting to be read
                answered = now + _GRACE_SECONDS - seconds
            elif now >= due:
                return f"no sign of life for {now - answered:.0f} s"
        await clock.sleep(BEAT_SECONDS)
