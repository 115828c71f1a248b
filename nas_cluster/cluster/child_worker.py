"""One worker slot: scores children one after the other in a warm process of its own, which it can kill.

The worker itself never imports torch and never runs a child's code, so it always knows how a child ended: by an
answer, by an exit code, by a signal, by the time limit or by the memory limit. Children of estimators that share a
process (a simulation, a table) run as coroutines here instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
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

from nas_cluster.cluster.messages import PartLost
from nas_cluster.config import Failures, JobConfig
from nas_cluster.core.component import build_component
from nas_cluster.core.errors import ChildError, DataError, Diverged, NasClusterError
from nas_cluster.core.evaluation import Child, ChildId, Evaluation
from nas_cluster.core.phases import PhaseOrder, PhaseResult
from nas_cluster.estimators import Estimator, SharedEvaluator, WorkerContext

__all__ = ["ChildWorker", "Evaluators", "evaluate_safely", "train_phase_safely"]

_CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT, signal.SIGSYS}
_POLL_SECONDS = 0.25
_PRIVATE = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
"""What a child's process need not know: it never speaks to Ray."""
_UNLIMITED = Failures()
"""What is not a child may take its time."""
_NO_MEMORY = "DefaultCPUAllocator: can't allocate memory"
"""How torch says it on a CPU, in a RuntimeError."""
_ALLOCATOR = "glibc.malloc.hugetlb=1"
"""Large pages for maps: training takes and returns the same memory at every step, and page faults cost a CPU 15 % of it
(README of the trainer)."""


class Evaluators:
    """The job's estimator, open and warm in this process; another one while children bring settings of their own."""

    def __init__(self, config: JobConfig, *, device: str, test: bool) -> None:
        self._estimator = config.estimator
        self._context = WorkerContext(
            space=config.space,
            dataset=config.dataset,
            seed=config.seed,
            device=device,
            max_parameters=config.failures.max_parameters,
            test=test,
        )
        self._settings: dict[str, Any] | None = None
        self._open: Any = self._estimator.open(self._context)

    def of(self, child: Child) -> Any:
        """The evaluator for this child. Only one is kept open: two would hold two copies of the dataset."""
        if child.estimator != self._settings:
            self._open = None
            estimator = self._estimator
            if child.estimator is not None:
                estimator = build_component(Estimator, child.estimator, where="estimator")  # type: ignore[type-abstract]
            self._settings, self._open = child.estimator, estimator.open(self._context)
        return self._open

    def shared(self) -> SharedEvaluator:
        """The evaluator of the job itself, which holds what its children share."""
        assert self._settings is None
        evaluator: SharedEvaluator = self._open
        return evaluator


class ChildWorker:
    """A slot named `name`. `config` is JobConfig.to_dict(); with `test`, children are tested after training.

    host: the address at which the group's other workers reach this one.
    """

    def __init__(
        self, name: str, config: dict[str, Any], *, log: Path, test: bool = False, host: str = "127.0.0.1"
    ) -> None:
        self._name = name
        self._config = JobConfig.from_dict(config)
        self._config_json = config
        self._test = test
        self._host = host
        self._log = log
        self._process: _ChildProcess | None = None
        self._shared: Evaluators | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._done: asyncio.Queue[tuple[ChildId, Evaluation]] = asyncio.Queue()

    async def start(self) -> None:
        """Load what all children share. Raises DataError when the dataset cannot be read here."""
        if self._config.estimator.shares_process:
            self._shared = Evaluators(self._config, device="cpu", test=self._test)
        else:
            await asyncio.to_thread(self._warm_process)

    async def evaluate(self, child: Child) -> Evaluation:
        """Score one child; always returns, whatever the child does."""
        if self._shared is None:
            return await asyncio.to_thread(self._evaluate_in_process, child)
        started = time.monotonic()
        limit = self._config.failures.time_limit
        try:
            return _checked(await asyncio.wait_for(self._shared.of(child).evaluate(child), limit))
        except TimeoutError:
            return Evaluation.failure("timeout", f"longer than {limit:g} s", time.monotonic() - started)
        except Exception as error:
            return _failure(error, time.monotonic() - started)

    async def train_phase(self, order: PhaseOrder) -> PhaseResult:
        """Train one phase as a member of the group that the order describes.

        Raises PartLost when the process ended or could not (a lost group is one cause), Diverged when the loss did.
        """
        if self._shared is not None:
            answer = await asyncio.to_thread(train_phase_safely, self._shared, order)
        else:
            answer = await asyncio.to_thread(self._train_in_process, order)
        if "error" in answer:
            raise (Diverged if answer["diverged"] else PartLost)(answer["error"])
        return PhaseResult.from_json(answer)

    def _train_in_process(self, order: PhaseOrder) -> dict[str, Any]:
        try:
            return self._warm_process().ask({"phase": order.to_json()}, _UNLIMITED)
        except _Ended as ended:
            self._process = None
            return {"error": f"worker {self._name}: {ended.message}", "diverged": False}

    async def rendezvous(self) -> str:
        """HOST:PORT where this worker's process can listen for the others of its group."""
        with socket.socket() as free:
            free.bind((self._host, 0))
            return f"{self._host}:{free.getsockname()[1]}"

    async def submit(self, children: Sequence[Child]) -> None:
        """Start scoring many children at once; `collect` gives what is done. One call each way carries many."""
        for child in children:
            task = asyncio.ensure_future(self._evaluate_submitted(child))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _evaluate_submitted(self, child: Child) -> None:
        self._done.put_nowait((child.child_id, await self.evaluate(child)))

    async def collect(self) -> list[tuple[ChildId, Evaluation]]:
        """Wait until a submitted child is done; all that are done by then."""
        done = [await self._done.get()]
        while not self._done.empty():
            done.append(self._done.get_nowait())
        return done

    async def close(self) -> None:
        """End the child process, if there is one."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    def kill(self) -> bool:
        """End the child process whatever it is at, from any thread; the worker notices as if it had died. False when
        there is none."""
        process = self._process
        if process is None:
            return False
        process.kill_group()
        return True

    def _warm_process(self) -> _ChildProcess:
        if self._process is None:
            gpu = self._config.topology.resources.GPU > 0
            order = {"config": self._config_json, "test": self._test, "device": "cuda" if gpu else "cpu"}
            process = _ChildProcess(
                self._log,
                threads=max(1, int(self._config.topology.resources.CPU)),
                log_limit_mb=self._config.failures.log_limit_mb,
            )
            try:
                answer = process.ask(order, _UNLIMITED)
            except _Ended as ended:
                raise PartLost(f"worker {self._name} could not start: {ended.message}; see {self._log}") from None
            if "error" in answer:
                process.kill()
                raise (DataError if answer["user"] else NasClusterError)(answer["error"])
            self._process = process
        return self._process

    def _evaluate_in_process(self, child: Child) -> Evaluation:
        started = time.monotonic()
        try:
            process = self._warm_process()
            started = time.monotonic()
            answer = process.ask(child.to_json(), self._config.failures)
            return Evaluation.from_json(answer)
        except _Ended as ended:
            self._process = None
            return Evaluation.failure(ended.cause, ended.message, time.monotonic() - started)


class _Ended(Exception):
    """The child's process is gone; why."""

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause, self.message = cause, message


class _ChildProcess:
    """A process that runs `nas_cluster.cluster.child_process`: one JSON line in, one JSON line out."""

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
                [sys.executable, "-m", "nas_cluster.cluster.child_process", str(order_read), str(answer_write)],
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

    def ask(self, order: dict[str, Any], limits: Failures) -> dict[str, Any]:
        """Send an order, wait for its answer. Raises _Ended when the process ends or had to be ended."""
        with self._asking:
            return self._ask(order, limits)

    def _ask(self, order: dict[str, Any], limits: Failures) -> dict[str, Any]:
        started = moved = time.monotonic()
        try:
            self._orders.write(json.dumps(order).encode() + b"\n")
            self._orders.flush()
        except (BrokenPipeError, ValueError):  # it has ended, or another thread has ended it and closed its pipe
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
                elif self._process.returncode is not None:  # ended from another thread; what it started holds the pipe
                    raise self._ended()
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
        """End a process that is over a limit. Raises _Ended."""
        cause = None
        if limits.time_limit is not None and running >= limits.time_limit:
            cause = _Ended("timeout", f"longer than {limits.time_limit:g} s")
        elif limits.stall_limit is not None and standing >= limits.stall_limit:
            cause = _Ended("no_progress", f"no step for {limits.stall_limit:g} s")
        elif limits.memory_limit_gb is not None and (used := self._resident_gb()) > limits.memory_limit_gb:
            cause = _Ended("out_of_memory", f"{used:.2f} GB resident, {limits.memory_limit_gb:g} GB allowed")
        if cause is not None:
            self.kill()
            raise cause

    def _resident_gb(self) -> float:
        try:
            pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            return 0.0
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e9

    def _ended(self) -> _Ended:
        """Why the process is gone, from its exit status."""
        code = self._process.wait(10)
        self._close_pipes()
        if code >= 0:
            return _Ended("exit", f"the child's process ended with exit code {code}")
        name = signal.Signals(-code).name
        cause = "segfault" if -code in _CRASHES else "killed"
        return _Ended(cause, f"the child's process ended by {name}")

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


def evaluate_safely(evaluators: Evaluators, child: Child) -> Evaluation:
    """Score one child in this process; whatever it raises becomes a failed evaluation with its cause."""
    started = time.monotonic()
    try:
        return _checked(evaluators.of(child).evaluate(child))
    except (SystemExit, Exception) as error:
        return _failure(error, time.monotonic() - started)


def train_phase_safely(evaluators: Evaluators, order: PhaseOrder) -> dict[str, Any]:
    """Train a phase in this process; its result as plain data, or `error` and whether the loss `diverged`."""
    try:
        return evaluators.shared().train_phase(order).to_json()
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:2000], "diverged": isinstance(error, Diverged)}


def _checked(evaluation: Any) -> Evaluation:
    """The estimator's answer, or why it cannot be recorded."""
    if not isinstance(evaluation, Evaluation):
        return Evaluation.failure("bad_result", f"the estimator returned {type(evaluation).__name__}")
    if evaluation.status == "ok" and (evaluation.metric is None or not math.isfinite(evaluation.metric)):
        return Evaluation.failure("diverged", f"the metric is {evaluation.metric}", evaluation.seconds)
    try:
        json.dumps(evaluation.to_json(), allow_nan=False)
    except (TypeError, ValueError) as error:
        return Evaluation.failure("bad_result", f"not plain data: {error}", evaluation.seconds)
    return evaluation


def _failure(error: BaseException, seconds: float) -> Evaluation:
    if isinstance(error, SystemExit):
        return Evaluation.failure("exit", f"the child called sys.exit({error.code})", seconds)
    message = f"{type(error).__name__}: {error}"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or _NO_MEMORY in message:
        return Evaluation.failure("out_of_memory", message, seconds)
    return Evaluation.failure(error.cause if isinstance(error, ChildError) else "exception", message, seconds)
