"""The journal of a run: one SQLite database, one writer. A child counts when its row is committed."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import time
import uuid
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from nas_cluster.core.errors import Fenced, RunError
from nas_cluster.core.evaluation import Report
from nas_cluster.core.phases import PhaseResult
from nas_cluster.storage.database import StorageFailed, StorageFull, connect, take_lock
from nas_cluster.storage.layout import JOURNAL
from nas_cluster.storage.migration import SCHEMA_VERSION, migrate, schema
from nas_cluster.storage.queries import Queries
from nas_cluster.storage.reports import Life
from nas_cluster.storage.rows import BatchRow, ChildRow, PhaseRow, SessionKind, SnapshotRow, TrainingRow

__all__ = ["Journal"]


class Journal(Queries):
    """The single writer. Writes commit by themselves, or together inside `transaction()`."""

    def __init__(self, directory: Path, lock: int, kind: SessionKind) -> None:
        self._lock = lock
        self._depth = 0
        self._db = connect(directory, writable=True)
        try:
            with self._write():
                migrate(self._db)
                self.term = self._one("SELECT epoch FROM run") + 1
                self._db.execute("UPDATE run SET epoch = ?", (self.term,))
                self._db.execute(
                    "INSERT INTO sessions (epoch, phase, host, pid, started_at) VALUES (?, ?, ?, ?, ?)",
                    (self.term, kind, socket.gethostname(), os.getpid(), time.time()),
                )
        except StorageFailed as error:
            raise RunError(f"{directory}: {error}") from error

    @classmethod
    def create(cls, directory: Path, name: str, config: dict[str, Any]) -> None:
        """Make a run directory with an empty journal. Raises RunError when there is one already."""
        directory.mkdir(parents=True, exist_ok=True)
        if (directory / JOURNAL).exists():
            raise RunError(f"{directory}: already holds a run")
        temporary = directory / f".{JOURNAL}.{uuid.uuid4().hex}"
        db = sqlite3.connect(temporary, isolation_level=None)
        db.executescript(f"BEGIN;\n{schema()}\nPRAGMA user_version = {SCHEMA_VERSION};\nCOMMIT;")
        row = (name, uuid.uuid4().hex, _json(config), time.time())
        db.execute("INSERT INTO run (name, run_id, config, created_at, epoch) VALUES (?, ?, ?, ?, 0)", row)
        db.execute("PRAGMA journal_mode = WAL")  # a kill in the midst of this would leave what no reader can open
        db.close()
        try:
            os.link(temporary, directory / JOURNAL)  # a crash leaves no journal or a whole one; of two, one is refused
        except FileExistsError:
            raise RunError(f"{directory}: already holds a run") from None
        finally:
            temporary.unlink()

    @classmethod
    def open(cls, directory: Path, *, kind: SessionKind = "search", wait_seconds: float = 3.0) -> Self:
        """Take the run over: a new session with a new term, which fences any older writer.

        Raises RunError when another live process holds the run or the journal cannot be read. Waits a little for the
        lock, as a killed writer's parts may need a moment to die.
        """
        if not (directory / JOURNAL).exists():
            raise RunError(f"{directory}: holds no run")
        lock = take_lock(directory, wait_seconds)
        try:
            return cls(directory, lock, kind)
        except RunError:
            os.close(lock)
            raise

    def close(self, ended: str | None = None) -> None:
        """End the session and release the run."""
        if self._lock < 0:
            return
        try:
            if ended is not None:
                with self.transaction():
                    self._db.execute("UPDATE sessions SET ended = ? WHERE epoch = ?", (ended, self.term))
        finally:
            self._db.close()
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything written inside is durable when it ends, or none of it.

        Raises Fenced when another session has taken the run over, StorageFailed when the disk does not take it.
        """
        if self._depth:
            yield
            return
        with self._write():
            if self._one("SELECT epoch FROM run") != self.term:
                raise Fenced("another process has taken this run over")
            yield

    @contextmanager
    def _write(self) -> Iterator[None]:
        self._depth += 1
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        except sqlite3.OperationalError as error:
            failure = StorageFull if error.sqlite_errorcode == sqlite3.SQLITE_FULL else StorageFailed
            raise failure(f"the journal cannot be written: {error}") from error
        finally:
            self._depth -= 1

    def set_config(self, config: dict[str, Any], reason: str) -> None:
        """Replace the config, recording the old one."""
        with self.transaction():
            self.event("config_changed", reason=reason, before=self.config)
            self._db.execute("UPDATE run SET config = ?", (_json(config),))

    def plan(self, batch: BatchRow, children: Sequence[ChildRow]) -> None:
        """Record a minibatch before any of its children is trained; more children may be added to it later."""
        with self.transaction():
            self._db.execute(
                'INSERT OR IGNORE INTO batches (replica, "update", base_version, controller_hash, planned_at)'
                " VALUES (?, ?, ?, ?, ?)",
                (batch.replica, batch.update, batch.base_version, batch.controller_hash, batch.planned_at),
            )
            self._db.executemany(
                'INSERT INTO children (child_id, replica, "update", "index", number, tokens, architecture, key, seed,'
                " arm, log_prob, entropy, step_log_probs, planned_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        str(row.child.child_id),
                        row.child.child_id.replica,
                        row.child.child_id.update,
                        row.child.child_id.index,
                        row.child.number,
                        _json(row.child.tokens),
                        _json(row.child.architecture),
                        row.child.key,
                        row.child.seed,
                        row.arm,
                        row.log_prob,
                        row.entropy,
                        None if row.step_log_probs is None else _json(row.step_log_probs),
                        row.planned_at,
                    )
                    for row in children
                ],
            )

    def done(self, row: ChildRow, reports: Sequence[Report] = ()) -> bool:
        """Commit a child's result. The first one wins; a later one is recorded as an event and returns False.

        reports: those that came with it. What another attempt or another session's child reported is forgotten.
        """
        child_id, e = str(row.child.child_id), row.evaluation
        assert e is not None and row.reward is not None and row.finished_at is not None
        with self.transaction():
            changed = self._db.execute(
                "UPDATE children SET status = ?, cause = ?, message = ?, metric = ?, reward = ?, parameters = ?,"
                " seconds = ?, metrics = ?, details = ?, started_at = ?, finished_at = ?, worker = ?, attempts = ?,"
                " cached_from = ?, epoch = ? WHERE child_id = ? AND status IS NULL",
                (
                    *(e.status, e.cause, e.message, row.metric, row.reward, e.parameters, e.seconds),
                    *(_json(dict(e.metrics)), _json(e.details)),
                    *(row.started_at, row.finished_at, row.worker, row.attempts, row.cached_from, self.term, child_id),
                ),
            ).rowcount
            if changed:
                self._settle_reports(child_id, row.attempts, reports)
            else:
                self.event("duplicate_result", child=child_id, status=e.status, metric=row.metric)
        return bool(changed)

    def add_reports(self, what: str, attempt: int, reports: Sequence[Report], *, stage: str = "") -> None:
        """Record what a child, or a training of a stage, reports while it trains in this session. Said again it changes
        nothing; two reports of a step are united."""
        with self.transaction():
            Life(stage, what, self.term, attempt).write(self._db, reports)

    def _settle_reports(self, what: str, attempt: int, reports: Sequence[Report], *, stage: str = "") -> None:
        life = Life(stage, what, self.term, attempt)
        life.forget_others(self._db)
        life.write(self._db, reports)

    def applied(
        self,
        replica: int,
        update: int,
        *,
        learning_epoch: int = 0,
        last: bool = True,
        applied_at: float,
        staleness: int,
        verdict: str,
        scalars: dict[str, float],
    ) -> None:
        """A minibatch's gradient has reached the parameter servers; said again, it changes nothing."""
        with self.transaction():
            self._db.execute(
                "UPDATE batches SET epochs = epochs + 1, applied_at = ?, staleness = max(coalesce(staleness, 0), ?),"
                ' outcome = ?, scalars = ? WHERE replica = ? AND "update" = ? AND epochs = ?',
                (applied_at if last else None, staleness, verdict, _json(scalars), replica, update, learning_epoch),
            )

    def plan_phase(self, row: PhaseRow) -> None:
        """Record what a phase will train, before it begins; a phase that is known stays as it is."""
        with self.transaction():
            self._db.execute(
                "INSERT OR IGNORE INTO phases (phase, tokens, packed_tokens, planned_at) VALUES (?, '', ?, ?)",
                (row.phase, zlib.compress(_json(row.tokens).encode()), row.planned_at),
            )

    def phase_done(self, phase: int, path: str, result: PhaseResult, *, finished_at: float) -> None:
        """Commit a phase: its tensors are complete on disk. One trained again, as its file was lost, is replaced."""
        with self.transaction():
            self._db.execute(
                "UPDATE phases SET path = ?, result = ?, finished_at = ? WHERE phase = ?",
                (path, _json(result.to_json()), finished_at, phase),
            )

    def event(self, kind: str, **detail: Any) -> None:
        """Record something that happened to the run."""
        with self.transaction():
            self._db.execute("INSERT INTO events VALUES (?, ?, ?)", (time.time(), kind, _json(detail)))

    def heartbeat(self, active_seconds: float) -> None:
        """How long this session has run: what the time budget charges."""
        with self.transaction():
            self._db.execute("UPDATE sessions SET active_seconds = ? WHERE epoch = ?", (active_seconds, self.term))

    def add_snapshot(self, row: SnapshotRow) -> None:
        """A snapshot file is complete on disk."""
        with self.transaction():
            self._db.execute(
                "INSERT OR REPLACE INTO snapshots VALUES (?, ?, ?, ?)",
                (row.path, row.version, row.sha256, row.created_at),
            )

    def drop_snapshots(self, paths: Sequence[str]) -> None:
        """Forget snapshots whose files are about to be removed."""
        with self.transaction():
            self._db.executemany("DELETE FROM snapshots WHERE path = ?", [(path,) for path in paths])

    def plan_trainings(self, rows: Sequence[TrainingRow]) -> None:
        """Record trainings before any of them starts; known ones stay as they are."""
        with self.transaction():
            self._db.executemany(
                "INSERT OR IGNORE INTO trainings (stage, source, architecture, rank, seed, settings)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                [(r.stage, r.source, _json(r.architecture), r.rank, r.seed, _json(r.settings)) for r in rows],
            )

    def training_done(self, row: TrainingRow, attempt: int, reports: Sequence[Report] = ()) -> None:
        """Commit a training's result; the first one counts. attempt: which one has come to it. reports: those that came
        with it."""
        assert row.evaluation is not None
        with self.transaction():
            changed = self._db.execute(
                "UPDATE trainings SET evaluation = ?, reward = ?, test_metric = ?, finished_at = ?"
                " WHERE stage = ? AND source = ? AND seed = ? AND settings = ? AND evaluation IS NULL",
                (
                    _json({**row.evaluation.to_json(), "metric": row.metric}),
                    *(row.reward, row.test_metric, row.finished_at),
                    *(row.stage, row.source, row.seed, _json(row.settings)),
                ),
            ).rowcount
            if changed:
                self._settle_reports(row.name, attempt, reports, stage=row.stage)


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
