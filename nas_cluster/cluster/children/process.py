"""The process below a worker, as the worker holds it: started once, asked one order at a time."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

from nas_cluster.config import Failures
from nas_cluster.core.evaluation import Report
from nas_cluster.core.reporting import OnReport

__all__ = ["UNLIMITED", "ChildProcess", "Ended"]

_CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT, signal.SIGSYS}
_POLL_SECONDS = 0.25
_PRIVATE = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
"""What a child's process need not know: it never speaks to Ray."""
UNLIMITED = Failures()
"""What is not a child may take its time."""
_ALLOCATOR = "glibc.malloc.hugetlb=1"
"""Large pages for maps: training takes and returns the same memory at every step, and page faults cost a CPU 15 % of it
(README of the trainer)."""


class Ended(Exception):
    """The child's process is gone; why."""

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause, self.message = cause, message


class ChildProcess:
    """A process that runs `nas_cluster.cluster.children.main`: one JSON line in, one JSON line out, and before that one
    line for every report."""

    def __init__(self, log: Path, *, threads: int, log_limit_mb: float) -> None:
        self._log = log
        self._log_limit = int(log_limit_mb * 1e6)
        order_read, order_write = os.pipe()
        answer_read, answer_write = os.pipe()
        log.parent.mkdir(parents=True, exist_ok=True)
        count = str(threads)
        environment = {"OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count, "OPENBLAS_NUM_THREADS": count}
        environment["GLIBC_TUNABLES"] = os.environ.get("GLIBC_TUNABLES", _ALLOCATOR)
        path = os.pathsep.join(entry for entry in sys.path if entry)
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "nas_cluster.cluster.children.main", str(order_read), str(answer_write)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(order_read, answer_write),
                env={**_public_environment(), **environment, "PYTHONPATH": path},
                start_new_session=True,
            )
        os.close(order_read)
        os.close(answer_write)
        self._orders: IO[bytes] = os.fdopen(order_write, "wb")
        self._answers = answer_read
        self._asking = threading.RLock()
        """Held by the thread that waits for an answer: nobody closes the pipe below it."""

    def ask(self, order: dict[str, Any], limits: Failures, on_report: OnReport = lambda report: None) -> dict[str, Any]:
        """Send an order, wait for its answer. Raises Ended when the process ends or had to be ended."""
        with self._asking:
            return self._ask(order, limits, on_report)

    def _ask(self, order: dict[str, Any], limits: Failures, on_report: OnReport) -> dict[str, Any]:
        started = moved = time.monotonic()
        try:
            self._orders.write(json.dumps(order).encode() + b"\n")
            self._orders.flush()
        except (BrokenPipeError, ValueError):  # it has ended, or another thread has ended it and closed its pipe
            raise self._ended() from None
        received = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._answers, selectors.EVENT_READ)
            while True:
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
                    *lines, received = (received + chunk).split(b"\n")
                    moved = time.monotonic()
                    for said in (json.loads(line) for line in lines if line):  # empty lines say that it gets on
                        if "report" not in said:
                            self._limit_log()
                            answer: dict[str, Any] = said
                            return answer
                        on_report(Report.from_json(said["report"]))
                elif self._process.returncode is not None:  # ended from another thread; what it started holds the pipe
                    raise self._ended()
                else:
                    self._check(limits, time.monotonic() - started, time.monotonic() - moved)
                self._limit_log()

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
            pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            return 0.0
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e9

    def _ended(self) -> Ended:
        """Why the process is gone, from its exit status."""
        code = self._process.wait(10)
        self._close_pipes()
        if code >= 0:
            return Ended("exit", f"the child's process ended with exit code {code}")
        name = signal.Signals(-code).name
        cause = "segfault" if -code in _CRASHES else "killed"
        return Ended(cause, f"the child's process ended by {name}")

    def kill(self) -> None:
        """End the process and everything it started."""
        self.kill_group()
        self._process.wait(10)
        self._close_pipes()

    def kill_group(self) -> None:
        """Only send the signal."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _close_pipes(self) -> None:
        """Once no thread waits for an answer any more, which the end of the process brings about."""
        with self._asking:
            with contextlib.suppress(BrokenPipeError):
                self._orders.close()
            if self._answers >= 0:
                os.close(self._answers)
                self._answers = -1


def _public_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in _PRIVATE}
