"""Time as a collaborator, so that tests can own it."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """What the distributed part needs of time."""

    def now(self) -> float:
        """Wall-clock seconds since the epoch, for records that people read."""
        ...

    def monotonic(self) -> float:
        """Seconds that never jump, for durations and limits."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Suspend the calling coroutine."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        """Wall-clock seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that never jump."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Suspend the calling coroutine."""
        await asyncio.sleep(seconds)
