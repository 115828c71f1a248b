"""A job's estimator as one process holds it, and what becomes of whatever it raises or returns."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from typing import Any

from nas_cluster.config import JobConfig
from nas_cluster.core.component import build_component
from nas_cluster.core.errors import ChildError, Diverged
from nas_cluster.core.evaluation import CAUSES, Child, Evaluation, writable
from nas_cluster.core.metrics import BadMetric, check_usual, finite, plain_values
from nas_cluster.core.phases import PhaseOrder
from nas_cluster.core.reward import without_objective
from nas_cluster.estimators import Estimator, SharedEvaluator, WorkerContext

__all__ = ["Evaluators", "checked", "evaluate_safely", "failure_of", "train_phase_safely"]

_NO_MEMORY = "DefaultCPUAllocator: can't allocate memory"
"""How torch says it on a CPU, in a RuntimeError."""


class Evaluators:
    """The job's estimator, open and warm in this process; another one while children bring settings of their own."""

    def __init__(self, config: JobConfig, *, device: str, test: bool) -> None:
        self.own_metric = config.estimator.metric_name
        self.objective = config.objective.name
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


def evaluate_safely(evaluators: Evaluators, child: Child) -> Evaluation:
    """Score one child in this process; whatever it raises becomes a failed evaluation with its cause."""
    started = time.monotonic()
    try:
        evaluation = evaluators.of(child).evaluate(child)
        return checked(evaluation, own=evaluators.own_metric, objective=evaluators.objective)
    except (SystemExit, Exception) as error:
        return failure_of(error, time.monotonic() - started)


def train_phase_safely(evaluators: Evaluators, order: PhaseOrder) -> dict[str, Any]:
    """Train a phase in this process; its result as plain data, or `error` and whether the loss `diverged`."""
    try:
        return evaluators.shared().train_phase(order).to_json()
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:2000], "diverged": isinstance(error, Diverged)}


def checked(evaluation: Any, *, own: str, objective: str) -> Evaluation:
    """The estimator's answer with its metrics as plain numbers, or why it cannot be recorded.

    own: the estimator's own metric. objective: the one that counts, which a successful child must have.
    """
    if not isinstance(evaluation, Evaluation):
        return Evaluation.failure("bad_result", f"the estimator returned {type(evaluation).__name__}")
    try:
        metrics = plain_values(evaluation.metrics)
    except BadMetric as error:
        return Evaluation.failure("bad_result", str(error))
    seconds = metrics.get("seconds", 0.0)
    seconds = seconds if 0 <= seconds < math.inf else 0.0
    if (wrong := _wrong_words(evaluation)) is not None:
        return Evaluation.failure("bad_result", wrong, seconds)
    if evaluation.status == "ok":
        for name in dict.fromkeys((objective, own)):
            if not math.isfinite(metrics.get(name, 0.0)):
                return Evaluation.failure("diverged", f"the {name} is {metrics[name]}", seconds)
        if objective not in metrics:
            return without_objective(objective, metrics, seconds)
    for name in metrics.keys() - finite(metrics):
        return Evaluation.failure("bad_result", f"metric {name!r} is {metrics[name]}", seconds)
    plain = replace(evaluation, metrics=metrics, message=writable(evaluation.message))
    try:
        check_usual(metrics)
        json.dumps(plain.to_json(), allow_nan=False)
    except BadMetric as error:
        return Evaluation.failure("bad_result", str(error), seconds)
    except (TypeError, ValueError) as error:
        return Evaluation.failure("bad_result", f"not plain data: {error}", seconds)
    return plain


def _wrong_words(evaluation: Evaluation) -> str | None:
    """What is wrong with all of an evaluation that is no metric: the journal takes only what it knows."""
    status, cause, message = evaluation.status, evaluation.cause, evaluation.message
    if status not in ("ok", "failed"):
        return f"status {status!r}; it is 'ok' or 'failed'"
    if cause not in ((None,) if status == "ok" else tuple(CAUSES)):
        known = f"known causes: {', '.join(CAUSES)}" if status == "failed" else "what is ok has none"
        return f"cause {cause!r}; {known}; the message was: {message}"
    if not isinstance(message, str) or not isinstance(evaluation.details, dict):
        return "message must be a text and details a mapping"
    return None


def failure_of(error: BaseException, seconds: float) -> Evaluation:
    """What a child has come to that raised this."""
    if isinstance(error, SystemExit):
        return Evaluation.failure("exit", f"the child called sys.exit({error.code})", seconds)
    message = f"{type(error).__name__}: {error}"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or _NO_MEMORY in message:
        return Evaluation.failure("out_of_memory", message, seconds)
    return Evaluation.failure(error.cause if isinstance(error, ChildError) else "exception", message, seconds)
