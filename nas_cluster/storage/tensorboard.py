"""A run's curves for TensorBoard, written from its journal: every child and every update once, off the search's path.

They are for people: a disk that does not take them costs points, never the run.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from pathlib import Path
from typing import Any

from nas_cluster.storage.layout import TENSORBOARD
from nas_cluster.storage.record import RunRecord
from nas_cluster.storage.rows import BatchRow, ChildRow

__all__ = ["TensorBoard"]

_LATE_SECONDS = 30.0
"""A row may be committed so much later than others that were finished after it."""


class TensorBoard:
    """Follows the run in `directory`. Its methods wait for the disk, so they are for a thread of their own.

    A child's step is its number, an update's its place among all. What an earlier session has written is not written
    again: the time of its newest file is that of the last row in it.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._folder = directory / TENSORBOARD
        self._record: RunRecord | None = None
        self._file: Any = None
        self._until = 0.0
        self._written: dict[str, float] = {}
        """Rows of the last seconds and their times: what is read again, as a row may come late."""
        self._best: float | None = None
        self._at_work = threading.Lock()
        self._closed = False
        self._updates = 0

    def follow(self) -> None:
        """Write what was committed since the last time."""
        with self._at_work:
            if not self._closed:
                self._follow()

    def _follow(self) -> None:
        try:
            if self._record is None:
                self._begin(RunRecord.open(self._directory))
            assert self._record is not None
            since = self._until - _LATE_SECONDS if self._written else self._until
            children = [row for row in self._record.done_since(since) if str(row.child.child_id) not in self._written]
            batches = [row for row in self._record.applied_since(since) if _name(row) not in self._written]
            if children or batches:
                self._write(children, batches)
        except Exception:  # points are for people: whatever costs some of them is no reason to end a search
            logging.getLogger(__name__).debug("points for TensorBoard are lost", exc_info=True)
            self._file = None  # it may end in half a record: what comes later goes to another file

    def close(self) -> None:
        """Write what is left."""
        with self._at_work:
            self._follow()
            self._closed = True  # a thread that comes late finds nothing to do
            if self._file is not None:
                self._file.close()
                self._file = None
            if self._record is not None:
                self._record.close()
                self._record = None

    def _begin(self, record: RunRecord) -> None:
        self._record = record
        self._until = max((path.stat().st_mtime for path in self._folder.glob("events.*")), default=0.0)
        self._best, self._updates = record.standing_at(self._until)

    def _write(self, children: list[ChildRow], batches: list[BatchRow]) -> None:
        for row in children:
            assert row.reward is not None and row.finished_at is not None
            if row.ok and (self._best is None or row.reward > self._best):
                self._best = row.reward
            values = {"reward": row.reward} | ({} if self._best is None else {"best_reward": self._best})
            self._add("children", values, row.child.number, row.finished_at)
            self._written[str(row.child.child_id)] = row.finished_at
        for batch in batches:
            assert batch.applied_at is not None
            self._updates += 1
            values = {**batch.scalars, "staleness": float(batch.staleness or 0)}
            self._add("controller", values, self._updates, batch.applied_at)
            self._written[_name(batch)] = batch.applied_at
        self._file.flush()
        self._until = max(self._until, *self._written.values())
        recent = self._until - _LATE_SECONDS
        self._written = {name: moment for name, moment in self._written.items() if moment > recent}
        os.utime(self._file.name, (self._until, self._until))

    def _add(self, group: str, values: dict[str, float], step: int, moment: float) -> None:
        """One event with a point for each of these values."""
        from tensorboard.compat.proto.event_pb2 import Event  # a fifth of a second, for those who write
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            name = f"events.out.tfevents.{time.time_ns()}.nas_cluster"  # readers take them in the order of their names
            self._file = (self._folder / name).open("wb")
            RecordWriter(self._file).write(Event(wall_time=moment, file_version="brain.Event:2").SerializeToString())
        points = [Summary.Value(tag=f"{group}/{name}", simple_value=value) for name, value in values.items()]
        event = Event(wall_time=moment, step=step, summary=Summary(value=points))
        RecordWriter(self._file).write(event.SerializeToString())


def _name(row: BatchRow) -> str:
    return f"{row.replica}/{row.update}"
