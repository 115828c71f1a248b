"""One worker: scores children in a warm process of its own, one after the other, which it can kill.

The worker itself never imports torch and never runs a child's code, so it always knows how a child ended: by an
answer, by an exit code, by a signal, by the time limit or by the memory limit. Children of estimators that share a
process (a simulation, a table) run as coroutines here instead, many at a time.
"""

from __future__ import annotations

import asyncio
import socket
import time
from functools import partial
from pathlib import Path
from typing import Any

from nas_cluster.cluster.children.evaluators import Evaluators, checked, failure_of, train_phase_safely
from nas_cluster.cluster.children.process import UNLIMITED, ChildProcess, Ended
from nas_cluster.cluster.children.reports import Outbox, Thinned
from nas_cluster.cluster.messages import Answer, PartLost
from nas_cluster.config import JobConfig
from nas_cluster.core.errors import DataError, Diverged, NasClusterError
from nas_cluster.core.evaluation import Child, ChildId, Evaluation, Report
from nas_cluster.core.phases import PhaseOrder, PhaseResult
from nas_cluster.core.reporting import listening

__all__ = ["ChildWorker"]


class ChildWorker:
    """A slot named `name`. `config` is JobConfig.to_dict(); with `test`, children are tested after training.

    address: that at which the group's other workers reach this one.
    """

    def __init__(
        self, name: str, config: dict[str, Any], *, log: Path, test: bool = False, address: str = "127.0.0.1"
    ) -> None:
        self._name = name
        self._config = JobConfig.from_dict(config)
        self._config_json = config
        self._test = test
        self._address = address
        self._log = log
        self._process: ChildProcess | None = None
        self._shared: Evaluators | None = None
        self._outbox = Outbox()

    async def start(self) -> None:
        """Load what all children share. Raises DataError when the dataset cannot be read here."""
        if self._config.estimator.shares_process:
            self._shared = Evaluators(self._config, device="cpu", test=self._test)
        else:
            await asyncio.to_thread(self._warm_process)

    async def evaluate(self, child: Child) -> Answer:
        """Score one child; always returns, whatever the child does."""
        if self._shared is None:
            evaluation = await asyncio.to_thread(self._evaluate_in_process, child)
        else:
            reports = Thinned(partial(self._outbox.add, child.child_id))
            with listening(reports.add):
                evaluation = await self._evaluate_here(self._shared, child)
            reports.flush()
        return Answer(evaluation, self._outbox.take(child.child_id))

    async def reports(self) -> list[tuple[ChildId, Report]]:
        """Wait for reports of children that are still at work; asked again, those given before have arrived."""
        return await self._outbox.fetch()

    async def _evaluate_here(self, shared: Evaluators, child: Child) -> Evaluation:
        started = time.monotonic()
        limit = self._config.failures.time_limit
        try:
            evaluation = await asyncio.wait_for(shared.of(child).evaluate(child), limit)
            return checked(evaluation, own=shared.own_metric, objective=shared.objective)
        except TimeoutError:
            return Evaluation.failure("timeout", f"longer than {limit:g} s", time.monotonic() - started)
        except Exception as error:
            return failure_of(error, time.monotonic() - started)

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
            return self._warm_process().ask({"phase": order.to_json()}, UNLIMITED)
        except Ended as ended:
            self._process = None
            return {"error": f"worker {self._name}: {ended.message}", "diverged": False}

    async def rendezvous(self) -> str:
        """HOST:PORT where this worker's process can listen for the others of its group."""
        with socket.socket() as free:
            free.bind((self._address, 0))
            return f"{self._address}:{free.getsockname()[1]}"

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

    def _warm_process(self) -> ChildProcess:
        if self._process is None:
            gpu = self._config.topology.resources.GPU > 0
            order = {"config": self._config_json, "test": self._test, "device": "cuda" if gpu else "cpu"}
            process = ChildProcess(
                self._log,
                threads=max(1, int(self._config.topology.resources.CPU)),
                log_limit_mb=self._config.failures.log_limit_mb,
            )
            try:
                answer = process.ask(order, UNLIMITED)
            except Ended as ended:
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
            answer = process.ask(child.to_json(), self._config.failures, partial(self._outbox.add, child.child_id))
            return Evaluation.from_json(answer)
        except Ended as ended:
            self._process = None
            return Evaluation.failure(ended.cause, ended.message, time.monotonic() - started)
