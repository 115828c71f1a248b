"""A request to stop a session from outside: by a signal, or by a file in the run's directory."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nas_cluster.storage.layout import STOP

__all__ = ["SIGNALS", "Stop", "stop_on_request"]

SIGNALS = {signal.SIGINT: "interrupted", signal.SIGTERM: "stopped"}
"""The signals that stop a session, and how it has ended then."""
_LOOK_SECONDS = 0.5
"""How often a run looks whether it was asked to stop."""


class Stop:
    """A request to stop from outside (a signal). `ended` says how the session is then recorded."""

    def __init__(self) -> None:
        self._asked = asyncio.Event()
        self._hurried = asyncio.Event()
        self.ended = "stopped"
        self.reason = ""

    def ask(self, reason: str, ended: str) -> None:
        """Ask for a stop; the first reason counts. Interrupted once more, it does not wait for children in flight."""
        if not self._asked.is_set():
            self.reason, self.ended = reason, ended
            self._asked.set()
        elif ended == "interrupted":
            self._hurried.set()

    async def wait(self) -> None:
        """Return once a stop was asked for."""
        await self._asked.wait()

    async def wait_hurried(self) -> None:
        """Return once it was asked for again, by somebody who has no patience."""
        await self._hurried.wait()


@contextmanager
def stop_on_request(stop: Stop, directory: Path) -> Iterator[None]:
    """Have SIGINT (interrupted), SIGTERM and a file in the run's directory (stopped) ask for a stop; only the main
    thread can receive signals."""
    (directory / STOP).unlink(missing_ok=True)
    watch = asyncio.create_task(_watch_stop_file(directory / STOP, stop))
    signals = SIGNALS if threading.current_thread() is threading.main_thread() else {}
    loop = asyncio.get_running_loop()
    for number, ended in signals.items():
        loop.add_signal_handler(number, stop.ask, f"{number.name} received", ended)
    try:
        yield
    finally:
        watch.cancel()
        for number in signals:
            loop.remove_signal_handler(number)


async def _watch_stop_file(path: Path, stop: Stop) -> None:
    while not path.exists():
        await asyncio.sleep(_LOOK_SECONDS)
    path.unlink(missing_ok=True)
    stop.ask("nas-cluster stop", "stopped")
