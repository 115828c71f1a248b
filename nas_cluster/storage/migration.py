"""The version of a journal, and how a writer brings an older one up to it. Readers read both."""

from __future__ import annotations

import re
import sqlite3
from importlib import resources

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
        db.execute("ALTER TABLE phases ADD COLUMN packed_tokens BLOB")
        db.execute("CREATE INDEX children_by_time ON children (finished_at)")
        table = re.search(r"CREATE TABLE reports .*?;", re.sub(r"--.*", "", schema()), re.DOTALL)
        assert table is not None
        db.execute(table.group())
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
