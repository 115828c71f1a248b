"""A run on shared or object storage: numbered, checksummed copies of the local run directory.

A live database is never put on a network file system; it stays on a local disk, and after every snapshot a consistent
copy of it goes to the mirror. The manifest is written last, so an upload that was cut off is no copy. Any machine can
take the run over from the newest copy whose checksums are right.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

import fsspec

from nas_cluster.core.errors import Fenced, RunError
from nas_cluster.storage.claim import Claim
from nas_cluster.storage.database import connect
from nas_cluster.storage.layout import CONFIG, JOURNAL, SHARED, SNAPSHOTS

__all__ = ["Mirror"]

_MARKER = "mirrored"
"""File in the local directory: number of the copy it stands at."""
_KEPT = 3


class Mirror:
    """The copies of one run below `url` (any fsspec URL: s3://, gs://, file:// for a shared folder)."""

    def __init__(self, url: str, name: str) -> None:
        self._place = f"{url.rstrip('/')}/{name}"
        self._fs, self._root = fsspec.core.url_to_fs(self._place)
        self._claim = Claim(self._fs, self._root)

    def claim(self, directory: Path) -> None:
        """Hold the run, so that no other machine goes on with it. Raises RunError when another one does, and Fenced
        when another one did since this one's copy was fetched."""
        self._claim.take()
        self._newest(directory)

    def check(self) -> None:
        """Raises Fenced when another machine has taken the run over."""
        self._claim.check()

    def release(self) -> None:
        """Hold the run no longer."""
        self._claim.release()

    def push(self, directory: Path) -> None:
        """Add a copy of the run. Raises Fenced when another machine holds it or has added one since this one did."""
        self._claim.check()
        numbers = self._newest(directory)
        number = numbers[-1] + 1 if numbers else 1
        with tempfile.TemporaryDirectory() as scratch:
            copy = Path(scratch) / JOURNAL
            snapshots, tensors = _copy_journal(directory, copy)
            files = {f"journal-{number:06d}.sqlite": copy, CONFIG: directory / CONFIG}
            files |= {f"{SNAPSHOTS}/{path}": directory / SNAPSHOTS / path for path in snapshots}
            files |= {name: path for name, path in tensors.items() if path.parent == directory / SHARED}
            manifest = {}
            for name, source in files.items():
                data = source.read_bytes()
                manifest[name] = hashlib.sha256(data).hexdigest()
                if not (_is_written_once(name) and self._fs.exists(f"{self._root}/{name}")):
                    self._write(name, data)
        self._claim.check()  # the upload may have taken minutes
        self._write(_manifest(number), json.dumps(manifest).encode())
        (directory / _MARKER).write_text(str(number))
        for old in numbers[: -(_KEPT - 1)]:
            self._drop(old)

    def pull(self, directory: Path) -> None:
        """Bring the local directory to the newest good copy, unless it is there already or no copy exists.

        Raises RunError when there are copies and none of them is good.
        """
        numbers = self._numbers()
        if not numbers or (numbers[-1] == _marker(directory) and (directory / JOURNAL).exists()):
            return
        for number in reversed(numbers):
            with tempfile.TemporaryDirectory(dir=_parent(directory)) as scratch:
                fetched = Path(scratch) / "run"
                if self._fetch(number, fetched):
                    (fetched / _MARKER).write_text(str(numbers[-1]))
                    shutil.rmtree(directory, ignore_errors=True)
                    fetched.rename(directory)
                    return
        raise RunError(f"{self._place}: none of its {len(numbers)} copies is whole; restore one from a backup")

    def _newest(self, directory: Path) -> list[int]:
        """The numbers of all copies, of which the local directory must stand at the last one."""
        numbers = self._numbers()
        newest = numbers[-1] if numbers else 0
        if newest != _marker(directory):
            raise Fenced(f"another machine has taken this run over ({self._place}, copy {newest})")
        return numbers

    def _fetch(self, number: int, target: Path) -> bool:
        """Download one copy; False when anything of it is missing or damaged."""
        try:
            manifest: dict[str, str] = json.loads(self._fs.cat_file(f"{self._root}/{_manifest(number)}"))
            for name, digest in manifest.items():
                data = self._fs.cat_file(f"{self._root}/{name}")
                if hashlib.sha256(data).hexdigest() != digest and name != CONFIG:
                    return False
                path = target / _local_name(name)
                if not path.resolve().is_relative_to(target.resolve()):
                    return False
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            connect(target, writable=True).close()
        except (OSError, ValueError, RunError):
            return False
        return True

    def _numbers(self) -> list[int]:
        """Numbers of the copies whose manifest is there, ascending."""
        self._fs.invalidate_cache()
        names = [Path(p).name for p in self._fs.ls(self._root, detail=False)] if self._fs.exists(self._root) else []
        return sorted(int(name[9:15]) for name in names if name.startswith("manifest-"))

    def _write(self, name: str, data: bytes) -> None:
        path = f"{self._root}/{name}"
        self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        self._fs.pipe_file(path, data)

    def _drop(self, number: int) -> None:
        """Remove an old copy, and snapshots and shared tensors that no kept manifest names."""
        for name in (_manifest(number), f"journal-{number:06d}.sqlite"):
            self._fs.rm_file(f"{self._root}/{name}")
        named: set[str] = set()
        for kept in self._numbers():
            named |= set(json.loads(self._fs.cat_file(f"{self._root}/{_manifest(kept)}")))
        for folder in {Path(name).parent.name for name in named if _is_written_once(name)}:
            for path in self._fs.ls(f"{self._root}/{folder}", detail=False):
                if f"{folder}/{Path(path).name}" not in named:
                    self._fs.rm_file(path)


def _manifest(number: int) -> str:
    return f"manifest-{number:06d}.json"


def _marker(directory: Path) -> int:
    try:
        return int((directory / _MARKER).read_text())
    except (OSError, ValueError):
        return 0


def _parent(directory: Path) -> Path:
    directory.parent.mkdir(parents=True, exist_ok=True)
    return directory.parent


def _is_written_once(name: str) -> bool:
    """Whether what has this name in one copy has it in all."""
    return name.startswith((f"{SNAPSHOTS}/", f"{SHARED}/"))


def _local_name(name: str) -> str:
    if name.startswith("journal-"):
        return JOURNAL
    if name.startswith(f"{SHARED}/"):
        stem, _, rest = name.partition("-")
        return stem + Path(rest).suffix
    return name


def _copy_journal(directory: Path, copy: Path) -> tuple[list[str], dict[str, Path]]:
    """A consistent copy of a live journal; the snapshots that it names, and by their name in a copy the shared tensors
    of its last phase (a phase trained again writes the same file, so its name tells what is in it)."""
    source: Any = connect(directory, writable=False)
    target = sqlite3.connect(copy)
    source.backup(target)
    paths = [row[0] for row in target.execute("SELECT path FROM snapshots")]
    last = "SELECT path, result FROM phases WHERE result IS NOT NULL ORDER BY phase DESC LIMIT 1"
    tensors = {}
    for place, result in target.execute(last):
        path = Path(place)
        tensors[f"{SHARED}/{path.stem}-{json.loads(result)['sha256'][:12]}{path.suffix}"] = path
    target.close()
    source.close()
    return paths, tensors
