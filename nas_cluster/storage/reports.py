"""What children and trainings report, as it is written: united by step, and forgotten where another life counts."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from nas_cluster.core.evaluation import Report

__all__ = ["Life"]


@dataclass(frozen=True)
class Life:
    """One training of a child (`stage` is then empty) or of a stage: that of this attempt in the session of this
    term."""

    stage: str
    what: str
    term: int
    attempt: int

    def write(self, db: sqlite3.Connection, reports: Sequence[Report]) -> None:
        """Two reports of a step are united; of a metric in both the later one counts. One process has made them, so
        their times are of one clock."""
        db.executemany(
            "INSERT INTO reports VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET metrics = CASE"
            " WHEN excluded.time >= time THEN json_patch(metrics, excluded.metrics)"
            " ELSE json_patch(excluded.metrics, metrics) END, time = max(time, excluded.time)",
            [
                (self.stage, self.what, self.term, self.attempt, one.step, json.dumps(dict(one.metrics)), one.time)
                for one in reports
            ],
        )

    def forget_others(self, db: sqlite3.Connection) -> None:
        """It is the one whose answer counts."""
        db.execute(
            "DELETE FROM reports WHERE stage = ? AND what = ? AND (term, attempt) != (?, ?)",
            (self.stage, self.what, self.term, self.attempt),
        )
