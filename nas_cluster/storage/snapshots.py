"""Snapshots: immutable safetensors files, checked by SHA-256 before they are read, the newest good one wins."""

from __future__ import annotations

import errno
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from nas_cluster.core.durable import write_durably
from nas_cluster.storage.database import StorageFull
from nas_cluster.storage.rows import SnapshotRow

__all__ = ["DamagedSnapshot", "SnapshotStore"]

Loaded = tuple[SnapshotRow, dict[str, NDArray[Any]], dict[str, Any]]


class DamagedSnapshot(Exception):
    """A snapshot file is missing or is not what was written."""


class SnapshotStore:
    """The snapshot files of one run."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def write(self, version: int, arrays: Mapping[str, NDArray[Any]], meta: Mapping[str, Any]) -> SnapshotRow:
        """Write a file that is either complete on disk when this returns, or not there. Raises StorageFull."""
        self._directory.mkdir(parents=True, exist_ok=True)
        data = save({name: np.ascontiguousarray(a) for name, a in arrays.items()}, {"meta": json.dumps(meta)})
        digest = hashlib.sha256(data).hexdigest()
        path = self._directory / f"{version:09d}-{digest[:12]}.safetensors"
        try:
            write_durably(path, data)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise StorageFull(f"no room for snapshot {path.name}") from error
            raise
        return SnapshotRow(version, path.name, digest, time.time())

    def load(self, row: SnapshotRow) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Arrays and meta of a snapshot. Raises DamagedSnapshot; nothing is parsed before its hash is right."""
        path = self._directory / row.path
        try:
            with path.open("rb") as file:
                right = hashlib.file_digest(file, "sha256").hexdigest() == row.sha256  # before it is in memory
            data = path.read_bytes() if right else b""
        except OSError as error:
            raise DamagedSnapshot(f"{path.name}: {error.strerror}") from error
        if not right:
            raise DamagedSnapshot(f"{path.name}: its SHA-256 is not the recorded one")
        try:
            entries = deserialize(data)  # type: ignore[no-untyped-call]
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        except (SafetensorError, ValueError) as error:
            raise DamagedSnapshot(f"{path.name}: {error}") from error
        arrays = {
            name: np.frombuffer(entry["data"], dtype=_DTYPES[entry["dtype"]]).reshape(entry["shape"])
            for name, entry in entries
        }
        return arrays, json.loads(header["__metadata__"]["meta"])

    def newest_good(self, rows: Sequence[SnapshotRow]) -> tuple[Loaded | None, list[tuple[SnapshotRow, str]]]:
        """The newest snapshot that can be read, and those that were refused on the way with the reason."""
        refused: list[tuple[SnapshotRow, str]] = []
        for row in sorted(rows, key=lambda row: (row.version, row.created_at), reverse=True):
            try:
                arrays, meta = self.load(row)
            except DamagedSnapshot as error:
                refused.append((row, str(error)))
            else:
                return (row, arrays, meta), refused
        return None, refused

    def old(self, rows: Sequence[SnapshotRow], keep: int = 3) -> list[SnapshotRow]:
        """Rows that may go: all but the `keep` newest."""
        return sorted(rows, key=lambda row: (row.version, row.created_at), reverse=True)[keep:]

    def remove(self, rows: Sequence[SnapshotRow]) -> None:
        """Delete the files of snapshots that the journal has forgotten."""
        for row in rows:
            (self._directory / row.path).unlink(missing_ok=True)


_DTYPES = {"F32": np.float32, "F64": np.float64, "I64": np.int64}
