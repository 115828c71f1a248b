"""The version of a journal, and how a writer brings an older one up to it. Readers read both."""

from __future__ import annotations

import json
import re
import sqlite3
from importlib import resources

from nas_cluster.core.version_1 import read_estimator

__all__ = ["SCHEMA_VERSION", "migrate", "schema", "version_of"]

SCHEMA_VERSION = 2


def schema() -> str:
    """The statements that make an empty journal."""
    return resources.files("nas_cluster.storage").joinpath("schema.sql").read_text()


def version_of(db: sqlite3.Connection) -> int:
    """Of an open journal."""
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def migrate(db: sqlite3.Connection) -> None:
    """Bring a journal up to this version, inside the transaction that is open; nothing of it is lost."""
    if version_of(db) < 2:
        db.execute("ALTER TABLE children ADD COLUMN metrics TEXT")
        table = re.search(r"CREATE TABLE reports .*?;", re.sub(r"--.*", "", schema()), re.DOTALL)
        assert table is not None
        db.execute(table.group())
        _rename_settings(db)
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _rename_settings(db: sqlite3.Connection) -> None:
    """What is left of a stage goes on: its trainings are known by settings that today's estimators have."""
    for row in db.execute("SELECT rowid, settings FROM trainings").fetchall():
        settings = json.loads(row["settings"])
        estimator, _ = read_estimator(settings.get("estimator", {}))
        if estimator.get("kind") == "simulated":
            estimator.setdefault("reports", 0)
        renamed = json.dumps({**settings, "estimator": estimator}, sort_keys=True, separators=(",", ":"))
        db.execute("UPDATE OR IGNORE trainings SET settings = ? WHERE rowid = ?", (renamed, row["rowid"]))
