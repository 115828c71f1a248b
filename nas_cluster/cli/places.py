"""Where a run is: a folder, the URL that it is mirrored to, or the name of one that is mirrored from this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from nas_cluster import job
from nas_cluster.storage.layout import is_remote, working_copies

__all__ = ["HERE", "READABLE"]


class _Place(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.5
    name = "run"

    def __init__(self, *, urls: bool) -> None:
        self._urls = urls

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The folder. Raises RunError for a URL without a run, or with one that is damaged."""
        if isinstance(value, Path):
            return value
        if self._urls and is_remote(value):
            return job.fetch(value)
        copies = [] if Path(value).exists() else working_copies(value)
        return copies[0] if len(copies) == 1 else Path(value)


HERE = _Place(urls=False)
"""RUN_DIR, or the name of a run that is mirrored from this machine."""
READABLE = _Place(urls=True)
"""The same, or a URL of which the newest copy is fetched: STORAGE_PATH/NAME."""
