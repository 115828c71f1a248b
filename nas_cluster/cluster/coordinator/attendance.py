"""Which workers of a run are not there, and since when: what nobody brings is said, not waited for in silence."""

from __future__ import annotations

from nas_cluster.cluster.children.pool import ChildPool
from nas_cluster.config import JobConfig
from nas_cluster.core.clock import Clock

__all__ = ["Attendance"]

_ABSENT_SECONDS = 60.0
"""A worker that is not there after that is rarely slow to start: nobody has, or brings, what it asks for."""


class Attendance:
    """`waits_for`: what the run waits for, in words, from a minute without a worker until all are there."""

    def __init__(self, config: JobConfig, pool: ChildPool, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock
        self._each = "" if config.estimator.shares_process else f": {config.topology.resources.in_words} each"
        self._complete_at = clock.monotonic()
        self.waits_for = ""

    def look(self) -> bool:
        """Whether it waits for workers from now on."""
        absent, now = self._pool.absent, self._clock.monotonic()
        waited = bool(self.waits_for)
        if not absent:
            self._complete_at, self.waits_for = now, ""
        elif waited or now - self._complete_at >= _ABSENT_SECONDS:
            self.waits_for = f"{absent} of {self._pool.workers} workers{self._each}"
        return bool(self.waits_for) and not waited
