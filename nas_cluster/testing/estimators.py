"""What every estimator promises."""

from __future__ import annotations

import asyncio
import inspect
import json
from typing import Any

import numpy as np

from nas_cluster.core.evaluation import Child, ChildId, Evaluation
from nas_cluster.core.metrics import check_name, finite, plain_values
from nas_cluster.core.reward import judge
from nas_cluster.estimators import Estimator, WorkerContext

__all__ = ["check_estimator"]


def check_estimator(estimator: Estimator, context: WorkerContext) -> None:
    """A child's evaluation is plain, finite, and the same wherever and whenever it is made."""
    again = type(estimator).model_validate(estimator.model_dump(mode="json"))
    assert again == estimator, "an estimator must survive model_dump and model_validate"
    name = check_name(estimator.metric_name)
    assert estimator.default_reward.wrong_for(estimator.objective) is None
    first, second = _child(context, 1), _child(context, 2)
    warm = estimator.open(context)
    results = [_evaluate(warm, first), _evaluate(warm, second), _evaluate(warm, first)]
    fresh = _evaluate(again.open(context), first)
    for result in results:
        assert result.status == "ok", result
        assert plain_values(result.metrics) == result.metrics == finite(result.metrics), "metrics are finite numbers"
        assert name in result.metrics, f"its own metric, {name!r}, must be among its metrics"
        assert judge(result, estimator.objective, estimator.default_reward).reward is not None
        assert Evaluation.from_json(json.loads(json.dumps(result.to_json(), allow_nan=False))) == result
    assert results[0].metrics[name] == results[2].metrics[name], "what ran before in the worker must not matter"
    assert results[0].metrics[name] == fresh.metrics[name], "which worker it is must not matter"


def _child(context: WorkerContext, seed: int) -> Child:
    tokens = context.space.random(np.random.default_rng(seed))
    architecture = context.space.decode(tokens)
    child_id = ChildId(0, 0, seed)
    return Child(child_id, seed, tokens, architecture.to_json(), context.space.key(architecture), seed)


def _evaluate(evaluator: Any, child: Child) -> Evaluation:
    result = evaluator.evaluate(child)
    evaluation: Evaluation = asyncio.run(result) if inspect.iscoroutine(result) else result
    return evaluation
