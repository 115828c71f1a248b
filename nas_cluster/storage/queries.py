"""SQL rows to the rows of `rows.py`: the queries that the writer and the readers of a journal share."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from nas_cluster.core.evaluation import Child, ChildId, Evaluation
from nas_cluster.core.phases import PhaseResult
from nas_cluster.storage.packing import unpacked
from nas_cluster.storage.rows import (
    BatchRow,
    ChildRow,
    EventRow,
    PhaseRow,
    SessionKind,
    SessionRow,
    SnapshotRow,
    TrainingRow,
)

__all__ = ["Queries"]

CACHEABLE = ("invalid", "too_large", "diverged")
"""Failures that would happen again: the cache may answer them."""


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
        data: dict[str, Any] = json.loads(self._one("SELECT config FROM run"))
        return data

    def children(self) -> list[ChildRow]:
        """All children, in the order of their numbers."""
        return [_child(row) for row in self._db.execute("SELECT * FROM children ORDER BY number")]

    def batch_children(self, replica: int, update: int) -> list[ChildRow]:
        """The children of one minibatch, by index."""
        found = self._db.execute(
            'SELECT * FROM children WHERE replica = ? AND "update" = ? ORDER BY "index"', (replica, update)
        )
        return [_child(row) for row in found]

    def done_since(self, moment: float) -> list[ChildRow]:
        """Children that were done after `moment` (seconds since 1970), in that order."""
        found = self._db.execute("SELECT * FROM children WHERE finished_at > ? ORDER BY finished_at, number", (moment,))
        return [_child(row) for row in found]

    def applied_since(self, moment: float) -> list[BatchRow]:
        """Minibatches whose last gradient was applied after `moment`, in that order."""
        found = self._db.execute("SELECT * FROM batches WHERE applied_at > ? ORDER BY applied_at, replica", (moment,))
        return [_batch(row) for row in found]

    def standing_at(self, moment: float) -> tuple[float | None, int]:
        """(best reward, minibatches applied) at that time."""
        best = "SELECT max(reward) FROM children WHERE status = 'ok' AND finished_at <= ?"
        applied = "SELECT count(*) FROM batches WHERE applied_at <= ?"
        return tuple(self._db.execute(query, (moment,)).fetchone()[0] for query in (best, applied))

    def child(self, child_id: str) -> ChildRow | None:
        """One child."""
        row = self._db.execute("SELECT * FROM children WHERE child_id = ?", (child_id,)).fetchone()
        return None if row is None else _child(row)

    def find_scored(self, key: str) -> ChildRow | None:
        """The first child with this canonical key whose result would come out the same again, or None."""
        row = self._db.execute(
            "SELECT * FROM children WHERE key = ? AND cached_from IS NULL"
            " AND (status = 'ok' OR (status = 'failed' AND cause IN (?, ?, ?))) ORDER BY finished_at, number LIMIT 1",
            (key, *CACHEABLE),
        ).fetchone()
        return None if row is None else _child(row)

    def top(self, count: int) -> list[ChildRow]:
        """The best `count` distinct architectures by reward; of equal ones the earliest."""
        found = self._db.execute(
            "SELECT * FROM children WHERE status = 'ok' GROUP BY key"
            " HAVING number = min(number) ORDER BY reward DESC, number LIMIT ?",
            (count,),
        )
        return [_child(row) for row in found]

    def batch(self, replica: int, update: int) -> BatchRow | None:
        """One minibatch."""
        row = self._db.execute('SELECT * FROM batches WHERE replica = ? AND "update" = ?', (replica, update)).fetchone()
        return None if row is None else _batch(row)

    def batches(self) -> list[BatchRow]:
        """All minibatches in the order in which they were planned."""
        return [_batch(row) for row in self._db.execute('SELECT * FROM batches ORDER BY planned_at, replica, "update"')]

    def events(self) -> list[EventRow]:
        """Everything that happened to the run, oldest first."""
        found = self._db.execute("SELECT * FROM events ORDER BY rowid")
        return [EventRow(row["time"], row["kind"], json.loads(row["detail"])) for row in found]

    def sessions(self) -> list[SessionRow]:
        """One row per process lifetime, oldest first."""
        return [_session(row) for row in self._db.execute("SELECT * FROM sessions ORDER BY epoch")]

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
        return [_phase(row) for row in self._db.execute("SELECT * FROM phases ORDER BY phase")]

    def phase(self, number: int) -> PhaseRow | None:
        """One phase; None: it was never planned. All of them are megabytes where architectures are large."""
        row = self._db.execute("SELECT * FROM phases WHERE phase = ?", (number,)).fetchone()
        return None if row is None else _phase(row)

    def trainings(self) -> list[TrainingRow]:
        """All trainings after the search, stage by stage in the order in which they were planned."""
        return [_training(row) for row in self._db.execute("SELECT * FROM trainings ORDER BY rowid")]

    def counts(self) -> dict[str, int]:
        """planned (all), done, ok, failed, cached, and one entry per cause of failure."""
        row = self._db.execute(
            "SELECT count(*) AS planned, count(status) AS done, coalesce(sum(status = 'ok'), 0) AS ok,"
            " coalesce(sum(status = 'failed'), 0) AS failed, count(cached_from) AS cached FROM children"
        ).fetchone()
        causes = self._db.execute("SELECT cause, count(*) AS n FROM children WHERE cause IS NOT NULL GROUP BY cause")
        return {**dict(row), **{cause["cause"]: cause["n"] for cause in causes}}

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

    def _one(self, query: str) -> Any:
        return self._db.execute(query).fetchone()[0]


def _session(row: sqlite3.Row) -> SessionRow:
    """In the table a session's kind is called phase, and its term epoch: version 1 of the journal said so."""
    data = dict(row)
    return SessionRow(term=data.pop("epoch"), kind=data.pop("phase"), machine=data.pop("host"), **data)


def _phase(row: sqlite3.Row) -> PhaseRow:
    tokens = tuple(tuple(tuple(one) for one in step) for step in json.loads(unpacked(row["tokens"])))
    result = None if row["result"] is None else PhaseResult.from_json(json.loads(row["result"]))
    return PhaseRow(**{**dict(row), "tokens": tokens, "result": result})


def _training(row: sqlite3.Row) -> TrainingRow:
    data = dict(row)
    evaluation = None if data["evaluation"] is None else Evaluation.from_json(json.loads(data["evaluation"]))
    architecture, settings = json.loads(data["architecture"]), json.loads(data["settings"])
    return TrainingRow(**{**data, "architecture": architecture, "settings": settings, "evaluation": evaluation})


def _batch(row: sqlite3.Row) -> BatchRow:
    data = dict(row)
    learned, verdict, scalars = data.pop("epochs"), data.pop("outcome"), json.loads(data.pop("scalars"))
    return BatchRow(**data, learning_epochs=learned, verdict=verdict, scalars=scalars)


def _child(row: sqlite3.Row) -> ChildRow:
    child = Child(
        child_id=ChildId(row["replica"], row["update"], row["index"]),
        number=row["number"],
        tokens=tuple(json.loads(row["tokens"])),
        architecture=json.loads(row["architecture"]),
        key=row["key"],
        seed=row["seed"],
    )
    evaluation = None
    if row["status"] is not None:
        evaluation = Evaluation(
            metric=row["metric"],
            status=row["status"],
            cause=row["cause"],
            message=row["message"],
            seconds=row["seconds"],
            parameters=row["parameters"],
            details=json.loads(row["details"]),
        )
    return ChildRow(
        child=child,
        arm=row["arm"],
        log_prob=row["log_prob"],
        entropy=row["entropy"],
        step_log_probs=None if row["step_log_probs"] is None else tuple(json.loads(row["step_log_probs"])),
        planned_at=row["planned_at"],
        evaluation=evaluation,
        reward=row["reward"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        worker=row["worker"],
        attempts=row["attempts"],
        cached_from=row["cached_from"],
    )
