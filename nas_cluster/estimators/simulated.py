"""A simulated estimator: a closed-form reward, a chosen duration, faults on request. No torch, no data.

It is for tests of scale and of faults, and for trying a topology before paying for GPUs. The reward is how far a
child's tokens agree with a secret seeded target, so it is learnable, in [0, 1], and its best value is known.
"""

from __future__ import annotations

import asyncio
import math
import os
import signal
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from pydantic import Field

from nas_cluster.core.component import Options
from nas_cluster.core.decisions import DecisionSpec
from nas_cluster.core.errors import Diverged
from nas_cluster.core.evaluation import Child, Evaluation
from nas_cluster.core.reporting import report
from nas_cluster.core.seeds import stream
from nas_cluster.estimators.base import AsyncEvaluator, Estimator, Evaluator, WorkerContext
from nas_cluster.spaces import SearchSpace

__all__ = ["Duration", "Simulated", "agreement"]

Fault = Literal[
    "exception", "diverged", "timeout", "bad_result", "exit", "sys_exit", "segfault", "killed", "memory", "allocate"
]

_IN_ANY_PROCESS = {"exception", "diverged", "timeout", "bad_result", "memory"}


class Duration(Options):
    """Seconds a child takes: constant, or log-normal with this median."""

    seconds: float = Field(0.0, ge=0)
    sigma: float = Field(0.0, ge=0)

    def draw(self, seed: int) -> float:
        """The duration of the child with this seed."""
        return self.seconds * math.exp(self.sigma * float(stream(seed, "duration").standard_normal()))


class Simulated(Estimator):
    """Children that only wait; with `isolated`, in worker processes like real ones, which faults may then kill."""

    uses_data = False

    target_seed: int = 0
    noise: float = Field(0.0, ge=0)
    """Standard deviation added to the metric, seeded by the child."""
    duration: Duration = Duration()
    faults: dict[int, Fault] = {}
    """Child number to what happens to it."""
    fault_rate: float = Field(0.0, ge=0, le=1)
    """Share of further children that raise an exception."""
    isolated: bool = False
    reports: int = Field(0, ge=0)
    """Steps of a made-up learning curve, reported evenly over the duration; it ends at the metric."""

    @property
    def shares_process(self) -> bool:
        """Unless isolated, all children are coroutines of one worker."""
        return not self.isolated

    def open(self, context: WorkerContext) -> Evaluator | AsyncEvaluator:
        """The simulator for this worker."""
        return _Isolated(self, context) if self.isolated else _Shared(self, context)

    def check(self, space: object) -> list[str]:
        """Faults that end a process need one."""
        fatal = sorted({fault for fault in self.faults.values() if fault not in _IN_ANY_PROCESS})
        if fatal and not self.isolated:
            return [f"estimator.faults: {', '.join(fatal)} would end a shared worker; set isolated: true"]
        return []

    def metric(self, child: Child, space: SearchSpace[Any]) -> float:
        """What an undisturbed evaluation of `child` measures. It is the architecture that counts, as it is for real
        children: other tokens may stand for the same one, and the cache may answer either."""
        space = space.at(child.first_number)
        tokens = space.encode(space.parse(child.architecture))
        noise = self.noise * float(stream(child.seed, "noise").standard_normal()) if self.noise else 0.0
        return agreement(space.decisions(), tokens, self.target_seed) + noise

    def result(self, child: Child, context: WorkerContext, seconds: float) -> Evaluation:
        """The evaluation of an undisturbed child; the metric without noise stands for a test set."""
        metrics = {"accuracy": self.metric(child, context.space), "seconds": seconds}
        if context.test:
            metrics["test_accuracy"] = self.model_copy(update={"noise": 0.0}).metric(child, context.space)
        return Evaluation(metrics)

    def report(self, step: int, metrics: Mapping[str, float]) -> None:
        """Report step `step` of the curve, from 1, that ends at these metrics."""
        still_to_learn = (1 - step / self.reports) ** 2
        report(step, accuracy=metrics["accuracy"] * (1 - still_to_learn), loss=still_to_learn)

    def fault(self, child: Child) -> Fault | None:
        """What happens to `child`."""
        if child.number in self.faults:
            return self.faults[child.number]
        struck = self.fault_rate > 0 and stream(child.seed, "fault").random() < self.fault_rate
        return "exception" if struck else None


def agreement(spec: DecisionSpec, tokens: tuple[int, ...], target_seed: int) -> float:
    """Mean agreement with a seeded target over decisions: 1 where equal, falling with distance; per bit for skips."""
    scores = []
    for decision, token in zip(spec, tokens, strict=True):
        if decision.cardinality == 1:
            continue
        target = _target(target_seed, decision.name, decision.cardinality)
        if decision.head == "skips":
            scores.append(1 - (token ^ target).bit_count() / decision.options)
        else:
            scores.append(1 - abs(token - target) / (decision.options - 1))
    return float(np.mean(scores)) if scores else 1.0


@lru_cache(maxsize=100_000)
def _target(seed: int, name: str, cardinality: int) -> int:
    return int(stream(seed, name).integers(cardinality))


class _Shared:
    def __init__(self, settings: Simulated, context: WorkerContext) -> None:
        self._settings = settings
        self._context = context

    async def evaluate(self, child: Child) -> Evaluation:
        settings = self._settings
        seconds = settings.duration.draw(child.seed)
        fault = settings.fault(child)
        evaluation = settings.result(child, self._context, seconds)
        for step in range(1, max(1, settings.reports) + 1):
            if seconds > 0:
                await asyncio.sleep(seconds / max(1, settings.reports))
            if settings.reports:
                settings.report(step, evaluation.metrics)
        if fault == "timeout":
            await asyncio.Event().wait()
        return evaluation if fault is None else _suffer(fault)


class _Isolated:
    def __init__(self, settings: Simulated, context: WorkerContext) -> None:
        self._settings = settings
        self._context = context

    def evaluate(self, child: Child) -> Evaluation:
        settings = self._settings
        seconds = settings.duration.draw(child.seed)
        fault = settings.fault(child)
        evaluation = settings.result(child, self._context, seconds)
        for step in range(1, max(1, settings.reports) + 1):
            time.sleep(seconds / max(1, settings.reports))
            if settings.reports:
                settings.report(step, evaluation.metrics)
        return evaluation if fault is None else _suffer(fault)


def _suffer(fault: Fault) -> Evaluation:
    """Let the fault happen to this process."""
    if fault == "exception":
        raise RuntimeError("simulated exception")
    if fault == "diverged":
        raise Diverged("simulated: the loss is not finite")
    if fault == "bad_result":
        return {"metric": 1.0}  # type: ignore[return-value]
    if fault == "memory":
        raise MemoryError("simulated")
    if fault == "sys_exit":
        raise SystemExit(3)
    if fault == "exit":
        os._exit(3)
    if fault == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if fault == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    kept = []
    while True:  # timeout: for ever; allocate: until the memory limit
        time.sleep(0.01)
        if fault == "allocate":
            kept.append(bytearray(64 << 20))
