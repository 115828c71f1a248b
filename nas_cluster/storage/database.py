"""A journal as the file that it is: opened, checked, locked by its one writer."""

from __future__ import annotations

import fcntl
import os
import socket
import sqlite3
import time
from pathlib import Path

from nas_cluster.core.errors import RunError, RunStopped
from nas_cluster.storage.layout import JOURNAL, LOCK
from nas_cluster.storage.migration import SCHEMA_VERSION

__all__ = ["StorageFailed", "StorageFull", "connect", "is_live", "take_lock"]


class StorageFailed(RunStopped):
    """The journal cannot be written (I/O error); what was committed is safe."""


class StorageFull(StorageFailed):
    """The disk is full; what was committed is safe, and the same write can be tried again."""


def connect(directory: Path, *, writable: bool) -> sqlite3.Connection:
    """A connection to a run's journal. Raises RunError: damaged, or written by a newer version."""
    path = directory / JOURNAL
    try:
        uri = f"{path.resolve().as_uri()}?mode={'rw' if writable else 'ro'}"
        db = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=10)
        db.row_factory = sqlite3.Row
        if writable:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA foreign_keys = ON")
        found = db.execute("PRAGMA user_version").fetchone()[0]
        check = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        runs = db.execute("SELECT count(*) FROM run").fetchone()[0] if check == "ok" else 0
    except sqlite3.Error as error:
        raise RunError(f"{path}: damaged or not a journal ({error}); restore it from a backup") from error
    if check != "ok" or runs != 1:
        reason = " ".join(str(check).split()) if check != "ok" else "no run row"
        raise RunError(f"{path}: damaged ({reason}); restore it from a backup")
    if found > SCHEMA_VERSION:
        raise RunError(f"{path}: written by a newer nas_cluster (journal {found}, this one reads {SCHEMA_VERSION})")
    return db


def is_live(directory: Path) -> bool:
    """Whether a process on this machine holds the run now."""
    try:
        lock = os.open(directory / LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)  # two that ask at once do not see each other
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def take_lock(directory: Path, wait_seconds: float) -> int:
    """The open lock file of a run, which is this process's from now on. Raises RunError when another one has it for so
    long: who."""
    lock = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() >= deadline:
                holder = os.read(lock, 200).decode(errors="replace").strip() or "another process"
                os.close(lock)
                raise RunError(f"{directory}: is in use by {holder}") from None
            time.sleep(0.05)
    os.truncate(lock, 0)
    os.pwrite(lock, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
    return lock
