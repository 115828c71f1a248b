"""The process in which a worker's children are trained, as the worker sees it: ask it, limit it, end it, know its end.

It is forked from a template that has imported what children need and does nothing else: a process that crashed, or had
to be killed, is replaced in the time of a fork, not of an import (torch: 2 to 5 CPU seconds). `child_process.py` has
the other side of both.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from nas_cluster.config import Failures

__all__ = ["ChildProcess", "Ended", "Template"]

_CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT, signal.SIGSYS}
_POLL_SECONDS = 0.25
_END_SECONDS = 30.0
"""The kernel may take its time to end a process that holds much memory, or waits for a disk."""
_PRIVATE = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
"""What a child's process need not know: it never speaks to Ray."""
_ALLOCATOR = "glibc.malloc.hugetlb=1"
"""Large pages for maps: training takes and returns the same memory at every step, and page faults cost a CPU 15 % of it
(README of the trainer)."""


class Ended(Exception):
    """The child's process is gone; why."""

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause, self.message = cause, message


class Template:
    """Forks children's processes, one at a time. imports: names of the modules that each finds imported.

    log: what children print is appended to it. threads: that a child may compute with.
    """

    def __init__(self, log: Path, *, imports: Sequence[str], threads: int) -> None:
        self._log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        count = str(threads)
        environment = {"OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count, "OPENBLAS_NUM_THREADS": count}
        environment["GLIBC_TUNABLES"] = os.environ.get("GLIBC_TUNABLES", _ALLOCATOR)
        path = os.pathsep.join(entry for entry in sys.path if entry)
        self._control, theirs = socket.socketpair()
        with log.open("ab") as output, theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "nas_cluster.cluster.child_process", str(theirs.fileno()), *imports],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(theirs.fileno(),),
                env={**_public_environment(), **environment, "PYTHONPATH": path},
                start_new_session=True,
            )

    def fork(self, *, log_limit_mb: float) -> ChildProcess:
        """A new process; the one before must have ended. Raises Ended when the template is gone."""
        order_read, order_write = os.pipe()
        answer_read, answer_write = os.pipe()
        try:
            socket.send_fds(self._control, [b"f"], [order_read, answer_write])
            pid = self.told()
        except OSError:
            pid = None
        finally:
            os.close(order_read)
            os.close(answer_write)
        if pid is None:
            os.close(order_write)
            os.close(answer_read)
            raise self._gone()
        return ChildProcess(self, pid, order_write, answer_read, self._log, log_limit=int(log_limit_mb * 1e6))

    def told(self) -> int | None:
        """The next number from the template: a process's id, or its exit code; None when the template is gone."""
        line = b""
        with contextlib.suppress(OSError):
            while byte := self._control.recv(1):
                if byte == b"\n":
                    return int(line)
                line += byte
        return None

    def wait_told(self, seconds: float) -> int | None:
        """The same within so many seconds."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._control, selectors.EVENT_READ)
            return self.told() if selector.select(seconds) else None

    def reap(self) -> None:
        """The process that has ended is signalled no more: its number may be given to another one."""
        with contextlib.suppress(OSError):
            self._control.send(b"r")

    def _gone(self) -> Ended:
        code = self._process.wait(_END_SECONDS)
        return Ended("killed", f"the process that children's processes are forked from ended with {code}")

    def close(self) -> None:
        """End it, and with it what it has forked."""
        self._process.kill()
        self._process.wait(_END_SECONDS)
        self._control.close()


class ChildProcess:
    """A process that takes one JSON line an order and gives one JSON line an answer."""

    def __init__(self, template: Template, pid: int, orders: int, answers: int, log: Path, *, log_limit: int) -> None:
        self.pid = pid
        self._template = template
        self._log = log
        self._log_limit = log_limit
        self._orders: IO[bytes] = os.fdopen(orders, "wb")
        self._answers = answers
        self._ending = threading.Lock()
        self._code: int | None = None

    def ask(self, order: dict[str, Any], limits: Failures) -> dict[str, Any]:
        """Send an order, wait for its answer. Raises Ended when the process ends or had to be ended."""
        started = moved = time.monotonic()
        try:
            self._orders.write(json.dumps(order).encode() + b"\n")
            self._orders.flush()
        except BrokenPipeError:
            raise self._ended() from None
        received = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._answers, selectors.EVENT_READ)
            while not received.endswith(b"\n"):
                now = time.monotonic()
                dues = [_POLL_SECONDS]
                if limits.time_limit is not None:
                    dues.append(started + limits.time_limit - now)
                if limits.stall_limit is not None:
                    dues.append(moved + limits.stall_limit - now)
                if selector.select(max(0.0, min(dues))):
                    chunk = os.read(self._answers, 1 << 20)
                    if not chunk:
                        raise self._ended()
                    received = (received + chunk).lstrip(b"\n")  # empty lines say that it gets on
                    moved = time.monotonic()
                else:
                    self._check(limits, time.monotonic() - started, time.monotonic() - moved)
                self._limit_log()
        self._limit_log()
        answer: dict[str, Any] = json.loads(received)
        return answer

    def _limit_log(self) -> None:
        """What was printed goes when it is too much. The process appends, so it goes on at the new end."""
        with contextlib.suppress(OSError):
            if self._log.stat().st_size > self._log_limit:
                os.truncate(self._log, 0)
                with self._log.open("ab") as file:
                    file.write(b"(what came before was more than failures.log_limit_mb and is gone)\n")

    def _check(self, limits: Failures, running: float, standing: float) -> None:
        """End a process that is over a limit. Raises Ended."""
        cause = None
        if limits.time_limit is not None and running >= limits.time_limit:
            cause = Ended("timeout", f"longer than {limits.time_limit:g} s")
        elif limits.stall_limit is not None and standing >= limits.stall_limit:
            cause = Ended("no_progress", f"no step for {limits.stall_limit:g} s")
        elif limits.memory_limit_gb is not None and (used := self._resident_gb()) > limits.memory_limit_gb:
            cause = Ended("out_of_memory", f"{used:.2f} GB resident, {limits.memory_limit_gb:g} GB allowed")
        if cause is not None:
            self.kill()
            raise cause

    def _resident_gb(self) -> float:
        try:
            pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            return 0.0
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e9

    def _ended(self) -> Ended:
        """Why the process is gone, from its exit status."""
        code = self._wait()
        self._close_pipes()
        if code is None:
            return Ended("killed", "the child's process and the one it was forked from are gone")
        if code >= 0:
            return Ended("exit", f"the child's process ended with exit code {code}")
        name = signal.Signals(-code).name
        cause = "segfault" if -code in _CRASHES else "killed"
        return Ended(cause, f"the child's process ended by {name}")

    def _wait(self) -> int | None:
        """Its exit code, or minus the signal that ended it; None when nobody knows any more."""
        with self._ending:
            if self._code is None:
                self._code = self._template.wait_told(_END_SECONDS)
                self._template.reap()
            return self._code

    def kill(self) -> None:
        """End the process and everything it started."""
        self.kill_group()
        self._wait()
        self._close_pipes()

    def kill_group(self) -> None:
        """Only send the signal."""
        if self._code is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def _close_pipes(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._orders.close()
        if self._answers >= 0:
            os.close(self._answers)
            self._answers = -1


def _public_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in _PRIVATE}
