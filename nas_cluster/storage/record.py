"""RunRecord: a run as readers see it, also while it is being written. Reads the journal only, never a live actor."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from nas_cluster.core.errors import RunError, nearest
from nas_cluster.storage.database import connect, is_live
from nas_cluster.storage.layout import JOURNAL
from nas_cluster.storage.queries import Queries

__all__ = ["RunRecord"]


class RunRecord(Queries):
    """Read-only. Open it with `RunRecord.open`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._db = connect(directory, writable=False)

    def close(self) -> None:
        """Let go of the journal; nothing is read any more."""
        self._db.close()

    @property
    def live(self) -> bool:
        """Whether a process of this machine holds the run now."""
        return is_live(self.directory)

    def state(self) -> str:
        """The same as of any journal, and `running` while `live`."""
        return "running" if self.live else super().state()

    @classmethod
    def open(cls, directory: Path) -> Self:
        """The run in `directory`. Raises RunError, in one line, for everything that is not a readable run."""
        if not directory.exists():
            siblings = [p.name for p in directory.parent.glob("*") if (p / JOURNAL).exists()]
            hint = f"; {nearest(directory.name, siblings, what='run')}" if siblings else ""
            raise RunError(f"{directory}: no such run{hint}")
        if not (directory / JOURNAL).exists():
            inside = sorted(p.name for p in directory.glob("*") if (p / JOURNAL).exists()) if directory.is_dir() else []
            hint = f"; it contains the runs {', '.join(inside)}" if inside else ""
            raise RunError(f"{directory}: not a run directory (no {JOURNAL}){hint}")
        return cls(directory)
