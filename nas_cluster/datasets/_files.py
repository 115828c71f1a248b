"""What readers of files say in one line: a path that is not there, and why bytes could not be read."""

from __future__ import annotations

import difflib
import textwrap
from pathlib import Path

from nas_cluster.core.errors import DataError

__all__ = ["absent", "reason"]


def absent(where: str, path: Path, *, folder: bool = False) -> DataError:
    """The error for a file (or folder) that is not at `path`: where it was looked for, and the nearest name there.

    where: the option or the dataset that asked for it.
    """
    wanted = "folder" if folder else "file"
    if path.is_file() if folder else path.is_dir():
        return DataError(f"{where}: {path.absolute()} is a {'file' if folder else 'folder'}, a {wanted} is needed")
    if not path.parent.is_dir():
        return DataError(f"{where}: no {wanted} {path.absolute()}; there is no folder {path.parent.absolute()} either")
    beside = [entry.name for entry in path.parent.iterdir() if entry.is_dir() == folder]
    close = difflib.get_close_matches(path.name, beside, n=1, cutoff=0.5)
    return DataError(f"{where}: no {wanted} {path.absolute()}" + (f"; did you mean {close[0]!r}?" if close else ""))


def reason(error: Exception) -> str:
    """What another library says of its failure, on one line."""
    return textwrap.shorten(str(error), 200) or type(error).__name__
