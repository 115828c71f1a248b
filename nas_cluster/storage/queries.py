"""The queries that the writer and the readers of a journal share."""

from __future__ import annotations

import sqlite3
from functools import cached_property
from typing import Any

from nas_cluster.core.evaluation import Report
from nas_cluster.storage.migration import version_of
from nas_cluster.storage.reading import (
    batch_row,
    child_row,
    json_in_sql,
    phase_row,
    read_json,
    session_row,
    training_row,
)
from nas_cluster.storage.rows import (
    BatchRow,
    ChildRow,
    EventRow,
    FailureRow,
    PhaseRow,
    SessionKind,
    SessionRow,
    SnapshotRow,
    TrainingRow,
)

__all__ = ["Queries"]

CACHEABLE = ("invalid", "too_large", "diverged")
"""Failures that would happen again: the cache may answer them."""

_LAST_ATTEMPT = (
    "(term, attempt) = (SELECT term, attempt FROM reports WHERE stage = r.stage AND what = r.what"
    " ORDER BY term DESC, attempt DESC LIMIT 1)"
)


class Queries:
    """Read access to the journal open at `self._db`."""

    _db: sqlite3.Connection

    @property
    def name(self) -> str:
        """The run's name."""
        return str(self._one("SELECT name FROM run"))

    @property
    def run_id(self) -> str:
        """Unique over all runs."""
        return str(self._one("SELECT run_id FROM run"))

    @property
    def config(self) -> dict[str, Any]:
        """The job's config as plain data (`JobConfig.from_dict` reads it)."""
        data: dict[str, Any] = read_json(self._one("SELECT config FROM run"))
        return data

    def children(self) -> list[ChildRow]:
        """All children, in the order of their numbers."""
        return [self._child(row) for row in self._db.execute("SELECT * FROM children ORDER BY number")]

    def batch_children(self, replica: int, update: int) -> list[ChildRow]:
        """The children of one minibatch, by index."""
        found = self._db.execute(
            'SELECT * FROM children WHERE replica = ? AND "update" = ? ORDER BY "index"', (replica, update)
        )
        return [self._child(row) for row in found]

    def done_since(self, moment: float) -> list[ChildRow]:
        """Children that were done after `moment` (seconds since 1970), in that order."""
        found = self._db.execute("SELECT * FROM children WHERE finished_at > ? ORDER BY finished_at, number", (moment,))
        return [self._child(row) for row in found]

    def applied_since(self, moment: float) -> list[BatchRow]:
        """Minibatches whose last gradient was applied after `moment`, in that order."""
        found = self._db.execute("SELECT * FROM batches WHERE applied_at > ? ORDER BY applied_at, replica", (moment,))
        return [batch_row(row) for row in found]

    def standing_at(self, moment: float) -> tuple[float | None, int]:
        """(best reward, minibatches applied) at that time."""
        best = "SELECT max(reward) FROM children WHERE status = 'ok' AND finished_at <= ?"
        applied = "SELECT count(*) FROM batches WHERE applied_at <= ?"
        return tuple(self._db.execute(query, (moment,)).fetchone()[0] for query in (best, applied))

    def child(self, child_id: str) -> ChildRow | None:
        """One child."""
        row = self._db.execute("SELECT * FROM children WHERE child_id = ?", (child_id,)).fetchone()
        return None if row is None else self._child(row)

    def find_scored(self, key: str) -> ChildRow | None:
        """The first child with this canonical key whose result would come out the same again, or None."""
        row = self._db.execute(
            "SELECT * FROM children WHERE key = ? AND cached_from IS NULL"
            " AND (status = 'ok' OR (status = 'failed' AND cause IN (?, ?, ?))) ORDER BY finished_at, number LIMIT 1",
            (key, *CACHEABLE),
        ).fetchone()
        return None if row is None else self._child(row)

    def top(self, count: int) -> list[ChildRow]:
        """The best `count` distinct architectures by reward; of equal ones the earliest."""
        found = self._db.execute(
            "SELECT * FROM children WHERE status = 'ok' GROUP BY key"
            " HAVING number = min(number) ORDER BY reward DESC, number LIMIT ?",
            (count,),
        )
        return [self._child(row) for row in found]

    def batch(self, replica: int, update: int) -> BatchRow | None:
        """One minibatch."""
        row = self._db.execute('SELECT * FROM batches WHERE replica = ? AND "update" = ?', (replica, update)).fetchone()
        return None if row is None else batch_row(row)

    def batches(self) -> list[BatchRow]:
        """All minibatches in the order in which they were planned."""
        return [
            batch_row(row) for row in self._db.execute('SELECT * FROM batches ORDER BY planned_at, replica, "update"')
        ]

    def events(self) -> list[EventRow]:
        """Everything that happened to the run, oldest first."""
        found = self._db.execute("SELECT * FROM events ORDER BY rowid")
        return [EventRow(row["time"], row["kind"], read_json(row["detail"])) for row in found]

    def sessions(self) -> list[SessionRow]:
        """One row per process lifetime, oldest first."""
        return [session_row(row) for row in self._db.execute("SELECT * FROM sessions ORDER BY epoch")]

    def state(self) -> str:
        """How the last session ended, or that it did not; done when the search and the stages after it are."""
        search = self.state_of("search")
        return search if search != "done" or not self._has_stages() else self.state_of("finalize")

    def _has_stages(self) -> bool:
        return bool(self.config.get("finalize") or self.config.get("correlate"))

    def state_of(self, kind: SessionKind) -> str:
        """The same for the sessions of one kind."""
        sessions = [session for session in self.sessions() if session.kind == kind]
        if not sessions:
            return "not started"
        return sessions[-1].ended or "its process was lost, or it runs on another machine"

    def snapshots(self) -> list[SnapshotRow]:
        """All snapshots, newest first."""
        found = self._db.execute("SELECT * FROM snapshots ORDER BY version DESC, created_at DESC")
        return [SnapshotRow(**dict(row)) for row in found]

    def phases(self) -> list[PhaseRow]:
        """All phases, oldest first."""
        return [phase_row(row) for row in self._db.execute("SELECT * FROM phases ORDER BY phase")]

    def phase(self, number: int) -> PhaseRow | None:
        """One phase; None: it was never planned. All of them are megabytes where architectures are large."""
        row = self._db.execute("SELECT * FROM phases WHERE phase = ?", (number,)).fetchone()
        return None if row is None else phase_row(row)

    def trainings(self) -> list[TrainingRow]:
        """All trainings after the search, stage by stage in the order in which they were planned."""
        return [training_row(row) for row in self._db.execute("SELECT * FROM trainings ORDER BY rowid")]

    def reports(self, what: str, *, stage: str = "") -> list[Report]:
        """What a child reported while it trained, by step; of several attempts the last session's last one's.

        what: a child_id; or `TrainingRow.name`, with its stage.
        """
        if self._without_reports:
            return []
        found = self._db.execute(
            "SELECT step, metrics, time FROM reports AS r WHERE stage = ? AND what = ?"
            f" AND {_LAST_ATTEMPT} ORDER BY step",
            (stage, what),
        )
        return [Report(row["step"], read_json(row["metrics"]), row["time"]) for row in found]

    def curves(self, metric: str) -> dict[str, list[tuple[int, float]]]:
        """(step, value) of that metric for every child of the search that reported it, by child_id."""
        if self._without_reports:
            return {}
        curves: dict[str, list[tuple[int, float]]] = {}
        with json_in_sql():
            found = self._db.execute(
                "SELECT what, step, json_extract(metrics, ?) AS value FROM reports AS r"
                " WHERE stage = '' AND value IS NOT NULL"
                f" AND {_LAST_ATTEMPT} ORDER BY what, step",
                (f"$.{metric}",),
            )
            for row in found:
                curves.setdefault(row["what"], []).append((row["step"], row["value"]))
        return curves

    def curve_metric(self, objective: str) -> str | None:
        """The metric whose learning curves say most: the one that counts, if children report it; None: they report
        nothing."""
        if self._without_reports:
            return None
        with json_in_sql():
            found = self._db.execute(
                "SELECT key FROM (SELECT metrics FROM reports WHERE stage = '' LIMIT 1000) AS some,"
                " json_each(some.metrics)"
                " GROUP BY key ORDER BY key != ?, count(*) DESC, key LIMIT 1",
                (objective,),
            ).fetchone()
        return None if found is None else str(found["key"])

    @property
    def _without_reports(self) -> bool:
        return version_of(self._db) < 2

    def counts(self) -> dict[str, int]:
        """planned (all), done, ok, failed, cached, and one entry per cause of failure."""
        row = self._db.execute(
            "SELECT count(*) AS planned, count(status) AS done, coalesce(sum(status = 'ok'), 0) AS ok,"
            " coalesce(sum(status = 'failed'), 0) AS failed, count(cached_from) AS cached FROM children"
        ).fetchone()
        causes = self._db.execute("SELECT cause, count(*) AS n FROM children WHERE cause IS NOT NULL GROUP BY cause")
        return {**dict(row), **{cause["cause"]: cause["n"] for cause in causes}}

    def failures(self) -> list[FailureRow]:
        """Why children failed, the most frequent cause first."""
        found = self._db.execute(
            "SELECT cause, count(*) AS count, message, max(finished_at) AS last_at FROM children"
            " WHERE status = 'failed' GROUP BY cause ORDER BY count(*) DESC, cause"
        )
        return [FailureRow(**dict(row)) for row in found]

    def mean_reward(self) -> float | None:
        """Of all children that are done, cached answers and failures too."""
        mean: float | None = self._one("SELECT avg(reward) FROM children WHERE status IS NOT NULL")
        return mean

    def newest_version(self) -> int:
        """Of the newest snapshot: with which the shards begin."""
        return int(self._one("SELECT coalesce(max(version), 0) FROM snapshots"))

    def used_numbers(self) -> set[int]:
        """Numbers of all planned children."""
        return {row["number"] for row in self._db.execute("SELECT number FROM children")}

    def first_unapplied(self) -> dict[int, tuple[int, int]]:
        """Each replica's first minibatch of which a gradient has not reached the parameter servers: its number, and how
        many gradients have."""
        found = self._db.execute(
            'SELECT replica, min("update") AS u, epochs FROM batches WHERE applied_at IS NULL GROUP BY replica'
        )
        return {row["replica"]: (row["u"], row["epochs"]) for row in found}

    def last_update(self) -> int:
        """The largest number of a planned minibatch, -1 before the first."""
        return int(self._one('SELECT coalesce(max("update"), -1) FROM batches'))

    def active_seconds(self) -> float:
        """Seconds of running, over all sessions."""
        return float(self._one("SELECT coalesce(sum(active_seconds), 0) FROM sessions"))

    def child_seconds(self) -> float:
        """Seconds that children were trained, cached answers not counted."""
        return float(self._one("SELECT coalesce(sum(seconds), 0) FROM children WHERE cached_from IS NULL"))

    def _child(self, row: sqlite3.Row) -> ChildRow:
        return child_row(row, self._config_once.get("estimator", {}))

    @cached_property
    def _config_once(self) -> dict[str, Any]:
        return self.config

    def _one(self, query: str) -> Any:
        return self._db.execute(query).fetchone()[0]
