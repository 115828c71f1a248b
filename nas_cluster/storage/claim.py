"""Which process may write to a run's mirror: a claim, a small file beside the copies that its holder keeps rewriting.

Storage that machines share has no locks that can be relied on, and their clocks differ. So a claim is alive when its
file changes, by the looker's own clock: a second driver watches for as long as a holder may be silent, is refused when
the file changes meanwhile, and takes over when it does not. The one that was taken over finds another's name there, and
is fenced. Should two take over in the same moment, the last to write wins and the other one sees it.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from typing import Any

from nas_cluster.core.errors import Fenced, RunError

__all__ = ["Claim"]

_FILE = "claim.json"
_RENEW_SECONDS = 3.0
_SILENT_SECONDS = 15.0
"""A holder whose file does not change for so long is gone."""
_SETTLE_SECONDS = 1.0
"""For which a new claim must stand before it counts."""


class Claim:
    """On the run at `root` of an fsspec file system. `take` it, `check` before writing, `release` it."""

    def __init__(self, fs: Any, root: str) -> None:
        self._fs = fs
        self._root = root
        self._path = f"{root}/{_FILE}"
        self._holder = ""
        self._beats = 0
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def take(self) -> None:
        """Wait until nobody else lives on this run, and hold it. Raises RunError when somebody does."""
        found = self._read()
        if found is not None:
            end = time.monotonic() + _SILENT_SECONDS
            while time.monotonic() < end:
                time.sleep(min(1.0, _SILENT_SECONDS / 10))
                now = self._read()
                if now is None:
                    break
                if now != found:
                    raise RunError(f"{self._root}: is in use by {now.get('who', 'another process')}")
        self._holder = uuid.uuid4().hex
        self._write()
        time.sleep(_SETTLE_SECONDS)
        self.check()
        self._ended.clear()
        self._thread = threading.Thread(target=self._renew, name="claim", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises Fenced unless this process still holds the run, or never did and nobody does."""
        found = self._read()
        if found is None and self._holder:
            raise Fenced(f"another process has taken this run over, and let it go again ({self._root})")
        if found is not None and found.get("holder") != self._holder:
            raise Fenced(f"another process has taken this run over ({self._root}: {found.get('who')})")

    def release(self) -> None:
        """Let the next one in without waiting."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            with contextlib.suppress(OSError, Fenced):
                self.check()
                self._fs.rm_file(self._path)
            self._holder = ""

    def _renew(self) -> None:
        while not self._ended.wait(_RENEW_SECONDS):
            with contextlib.suppress(OSError):  # out of reach: perhaps only for now; a push will tell
                try:
                    self.check()
                except Fenced:
                    return
                self._write()

    def _read(self) -> dict[str, Any] | None:
        """The claim that stands there; empty when it stays unreadable."""
        for _ in range(10):
            self._fs.invalidate_cache()
            try:
                found = json.loads(self._fs.cat_file(self._path))
            except FileNotFoundError:
                return None
            except ValueError:
                time.sleep(0.05)  # it is being rewritten
            else:
                return found if isinstance(found, dict) else {}
        return {}

    def _write(self) -> None:
        self._beats += 1
        who = f"process {os.getpid()} on {socket.gethostname()}"
        data = json.dumps({"holder": self._holder, "who": who, "beat": self._beats})
        self._fs.makedirs(self._root, exist_ok=True)
        self._fs.pipe_file(self._path, data.encode())
