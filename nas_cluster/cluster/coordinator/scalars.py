"""TensorBoard's scalars of a run. They are for people: a full disk costs points, never the run."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["Scalars"]

_FLUSH_SECONDS = 10.0


@contextlib.contextmanager
def _without_torch() -> Iterator[None]:
    """tensorboardX imports torch where it can: two seconds and 0.3 GB, of which scalars use nothing."""
    if "torch" in sys.modules:
        yield
        return
    sys.modules["torch"] = None  # type: ignore[assignment]  # "cannot be imported", says the import system
    try:
        yield
    finally:
        del sys.modules["torch"]


class Scalars:
    """Written at once, in this thread: the library's own writer has a thread that dies of a full disk, after which
    adding a point blocks for ever."""

    def __init__(self, directory: Path) -> None:
        # Not at the top, as shards import this too and need none of it, and not with the first point, when others wait
        # for this thread.
        with _without_torch():
            from tensorboardX.event_file_writer import EventsWriter
            from tensorboardX.proto.event_pb2 import Event
            from tensorboardX.summary import scalar

        self._events_writer, self._event, self._scalar = EventsWriter, Event, scalar
        self._directory = directory
        self._files = 0
        self._writer: Any = None
        self._flush_due = 0.0

    def add(self, name: str, value: float, step: int) -> None:
        """One point."""
        event = self._event(summary=self._scalar(name, value), step=step, wall_time=time.time())
        try:
            if self._writer is None:
                self._writer = self._open()
            self._writer.write_event(event)
            if time.monotonic() >= self._flush_due:
                self._flush_due = time.monotonic() + _FLUSH_SECONDS
                self._writer.flush()
        except OSError:
            self._writer = None  # it may end in half a record: what comes later goes to another file

    def close(self) -> None:
        """Everything is in the files."""
        if self._writer is not None:
            with contextlib.suppress(OSError):
                self._writer.close()
            self._writer = None

    def _open(self) -> Any:
        self._directory.mkdir(parents=True, exist_ok=True)
        self._files += 1
        return self._events_writer(str(self._directory / "events"), "" if self._files == 1 else f".{self._files}")
