"""The names inside a run directory, and where run directories are."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from nas_cluster.core.errors import ConfigError
from nas_cluster.core.folders import cache_root

__all__ = [
    "CONFIG",
    "JOURNAL",
    "LOCK",
    "LOGS",
    "REPORT",
    "SHARED",
    "SNAPSHOTS",
    "STOP",
    "TENSORBOARD",
    "check_run_name",
    "is_remote",
    "is_unfinished_journal",
    "reading_directory",
    "run_directory",
    "shared_directory",
    "working_copies",
]

JOURNAL = "journal.sqlite"
LOCK = "lock"
STOP = "stop"
"""Whoever makes this file asks the run to stop."""
CONFIG = "config.yaml"
SNAPSHOTS = "snapshots"
SHARED = "shared"
LOGS = "logs"
TENSORBOARD = "tensorboard"
REPORT = "report.html"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def check_run_name(name: str) -> str:
    """Return `name`, or raise ConfigError: a run's name is a directory name and cannot leave the storage root."""
    if not _NAME.fullmatch(name):
        fixed = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:100] or "search"
        raise ConfigError(f"a run's name has 1 to 100 letters, digits, '.', '_', '-'; the nearest is {fixed!r}")
    return name


def run_directory(storage_path: str, name: str) -> Path:
    """Where the run `name` lives on this machine. One that is mirrored to a URL has its working copy in the cache."""
    check_run_name(name)
    if is_remote(storage_path):
        return cache_root() / "runs" / _place(storage_path) / name
    return Path(storage_path).expanduser().absolute() / name


def reading_directory(storage_path: str, name: str) -> Path:
    """Where a copy of the mirrored run `name` goes that is only read: its working copy may be in use."""
    return cache_root() / "read" / _place(storage_path) / check_run_name(name)


def working_copies(name: str) -> list[Path]:
    """The directories on this machine of mirrored runs of this name."""
    if not _NAME.fullmatch(name):
        return []
    return sorted(path.parent for path in (cache_root() / "runs").glob(f"*/{name}/{JOURNAL}"))


def _place(storage_path: str) -> str:
    return hashlib.sha256(storage_path.encode()).hexdigest()[:12]


def shared_directory(directory: Path, storage_path: str) -> Path:
    """Where the workers of the run in `directory` pass files to each other: with a file:// URL in the folder that the
    nodes share, as `directory` is then on this machine's disk."""
    if storage_path.startswith("file://"):
        return Path(storage_path.removeprefix("file://")) / directory.name / SHARED
    return directory / SHARED


def is_unfinished_journal(path: Path) -> bool:
    """Whether this is what a process left that was killed while it made a journal: no run, and in nobody's way."""
    return path.name.startswith(f".{JOURNAL}.")


def is_remote(storage_path: str) -> bool:
    """Whether a storage path is an fsspec URL, to which the run is mirrored."""
    return "://" in storage_path
