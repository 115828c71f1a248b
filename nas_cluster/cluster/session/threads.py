"""Which thread a session runs in: the one that asks for it, or one of its own.

A thread that runs an event loop already (a notebook's) cannot run a second one, and a session that is to be looked at
while it goes on must not hold its caller. Both give it a thread and a loop of its own.
"""

from __future__ import annotations

import asyncio
import concurrent.futures.thread
import os
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, Generic, TypeVar

from nas_cluster.cluster.session.stop import SIGNALS, Stop

__all__ = ["Session", "SessionThread", "run_session"]

T = TypeVar("T")

Session = Callable[[Stop], Coroutine[Any, Any, T]]
"""What runs from the start of a session to its end, and ends early when its Stop asks for that."""


def run_session(session: Session[T]) -> T:
    """Run a session to its end and return what it returns. In the main thread SIGINT and SIGTERM stop it cleanly."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(session(Stop()))
    thread = SessionThread(session)
    with _signals_ask(thread.ask):
        thread.start()
        return thread.ended.result()


class SessionThread(Generic[T]):
    """A session in a thread of its own. One that goes on when the interpreter ends is stopped by that, cleanly."""

    def __init__(self, session: Session[T]) -> None:
        self.ended: concurrent.futures.Future[T] = concurrent.futures.Future()
        """What the session returned or raised, once its loop is closed."""
        self._session = session
        self._stop = Stop()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="session", daemon=True)

    def start(self) -> None:
        """Begin."""
        _going_on.add(self)
        self._thread.start()

    def ask(self, reason: str, ended: str) -> None:
        """What `Stop.ask` does, from any thread and at any time."""
        with suppress(RuntimeError):  # the loop is closed: it is over
            self._loop.call_soon_threadsafe(self._stop.ask, reason, ended)

    def join(self, timeout: float) -> bool:
        """Whether it is over, and whoever wants to know of it has been told, after so many seconds at most."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def current(self) -> bool:
        """Whether it is this thread that asks."""
        return threading.current_thread() is self._thread

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                result = runner.run(self._session(self._stop))
        except BaseException as error:
            self.ended.set_exception(error)
        else:
            self.ended.set_result(result)
        finally:
            _going_on.discard(self)


@contextmanager
def _signals_ask(ask: Callable[[str, str], None]) -> Iterator[None]:
    """Have SIGINT and SIGTERM call `ask`, whatever they do otherwise: asyncio's own handler of SIGINT would wait for
    its loop, which waits for us. Only the main thread receives signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def received(number: int, frame: FrameType | None) -> None:
        ask(f"{signal.Signals(number).name} received", SIGNALS[signal.Signals(number)])

    before = {number: signal.signal(number, received) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


_going_on: set[SessionThread[Any]] = set()

_STOP_SECONDS = {"stopped": 60.0, "interrupted": 10.0}
"""For which the end of the interpreter waits for a stop, and then for a hurried one: a callback that never returns
holds its session for ever, and must not hold the process as well. A last snapshot takes seconds, and `nas-cluster stop`
waits a minute too; whose children have more `failures.stop_grace` waits for them before the interpreter ends."""


def _stop_all() -> None:
    """Stop what goes on as SIGTERM would, and wait for it. Ctrl-C hurries it, and a second one leaves it as `kill -9`
    would, as does patience that is at an end: the journal survives that."""
    sessions = list(_going_on)
    for ended, seconds in _STOP_SECONDS.items():
        for session in sessions:
            session.ask("the interpreter ends", ended)
        with suppress(KeyboardInterrupt):
            deadline = time.monotonic() + seconds
            if all(session.join(max(0.0, deadline - time.monotonic())) for session in sessions):
                return


# A last snapshot needs threads, and `atexit` comes too late for them: Python starts none by then, and executors take no
# work. What executors themselves register comes in time; the last registered is called first, so theirs must be there
# before: hence the import of `concurrent.futures.thread`.
threading._register_atexit(_stop_all)  # type: ignore[attr-defined]
os.register_at_fork(after_in_child=_going_on.clear)  # a forked process has none of the threads
