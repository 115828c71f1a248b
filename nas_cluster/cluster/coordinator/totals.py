"""Running totals of a run: what the budget and the progress display read."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from nas_cluster.cluster.messages import Progress
from nas_cluster.config import JobConfig
from nas_cluster.core.clock import Clock
from nas_cluster.storage.journal import Journal
from nas_cluster.storage.rows import ChildRow

__all__ = ["Totals"]

_RATE_WINDOW = 50


class Totals:
    """Starts from what the journal holds and follows every committed row."""

    def __init__(self, config: JobConfig, journal: Journal, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._opened = clock.monotonic()
        self._earlier_seconds = journal.active_seconds()
        counts = journal.counts()
        self._done, self._failed, self._cached = counts["done"], counts["failed"], counts["cached"]
        self._first: tuple[float, int] | None = None
        """When the first child of this session was done, and how many were then."""
        self._best: tuple[float, str] | None = None
        for best in journal.top(1):
            if best.reward is not None:
                self._best = (best.reward, str(best.child.child_id))
        self._child_seconds = journal.child_seconds()
        self._mean = journal.mean_reward()
        self._versions: tuple[int, ...] = ()
        self._version = journal.newest_version()
        self._scalars: dict[str, float] = {}
        self._update_times: deque[float] = deque(maxlen=_RATE_WINDOW)
        self._staleness: deque[int] = deque(maxlen=_RATE_WINDOW)
        self.failed_in_a_row = 0

    @property
    def session_seconds(self) -> float:
        """Seconds this session has run."""
        return self._clock.monotonic() - self._opened

    def budget_used(self) -> bool:
        """Whether no further child may be started; `max_children` is counted where children are admitted."""
        budget = self._config.budget
        hours = (self._earlier_seconds + self.session_seconds) / 3600
        gpu_hours = self._child_seconds * self._config.topology.resources.GPU / 3600
        return (
            (budget.max_hours is not None and hours >= budget.max_hours)
            or (budget.max_gpu_hours is not None and gpu_hours >= budget.max_gpu_hours)
            or (budget.target_reward is not None and self._best is not None and self._best[0] >= budget.target_reward)
        )

    def child_done(self, row: ChildRow) -> None:
        """Count a committed child."""
        assert row.evaluation is not None and row.reward is not None
        self._done += 1
        self._first = self._first or (self._clock.monotonic(), self._done)
        self._cached += row.cached_from is not None
        if row.cached_from is None:
            self._child_seconds += row.evaluation.seconds
        if row.ok:
            self.failed_in_a_row = 0
            if self._best is None or row.reward > self._best[0]:
                self._best = (row.reward, str(row.child.child_id))
        else:
            self._failed += 1
            self.failed_in_a_row += row.cached_from is None
        mean = self._mean or 0.0
        self._mean = mean + (row.reward - mean) / self._done

    def update_applied(self, versions: Sequence[int], staleness: int, scalars: dict[str, float]) -> None:
        """Count a gradient that reached the parameter servers, which stand at these versions."""
        self._versions = tuple(versions)
        self._version = max(self._version, min(versions))
        self._scalars = scalars or self._scalars
        self._update_times.append(self._clock.monotonic())
        self._staleness.append(staleness)

    def progress(self, *, busy: int, slots: int, waiting: int) -> Progress:
        """How the run stands."""
        most = self._config.budget.max_children
        left = None
        if most is not None and self._first is not None and self._done > self._first[1]:
            at, done = self._first  # what it took until then is spent: starting processes, importing, waiting for nodes
            left = max(0, most - self._done) * (self._clock.monotonic() - at) / (self._done - done)
        times = self._update_times
        rate = (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 and times[-1] > times[0] else 0.0
        return Progress(
            children_done=self._done,
            children_failed=self._failed,
            children_cached=self._cached,
            children_running=busy,
            children_queued=waiting,
            max_children=most,
            best_reward=self._best[0] if self._best else None,
            best_child=self._best[1] if self._best else None,
            mean_reward=self._mean,
            entropy=self._scalars.get("entropy"),
            baseline=self._scalars.get("baseline"),
            updates=self._version,
            shard_versions=self._versions,
            updates_per_second=rate,
            mean_staleness=sum(self._staleness) / len(self._staleness) if self._staleness else 0.0,
            slots_busy=busy,
            slots=slots,
            child_seconds=self._child_seconds,
            active_seconds=self._earlier_seconds + self.session_seconds,
            seconds_left=left,
        )
