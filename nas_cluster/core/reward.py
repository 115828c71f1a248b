"""Which metric of a child counts, and how it becomes the reward that the strategy sees."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from nas_cluster.core.component import Options
from nas_cluster.core.errors import nearest
from nas_cluster.core.evaluation import TEST, Evaluation
from nas_cluster.core.importing import NotImported, imported
from nas_cluster.core.metrics import plain_value

__all__ = ["MOST", "Direction", "Judged", "Objective", "Reward", "judge", "without_objective"]

Direction = Literal["max", "min"]

_KINDS = ("identity", "cubed", "inverse", "inverse_square")
_INVERSE = ("inverse", "inverse_square")
_SCALE = 80.0
"""c of Zoph & Le 2017 (section 4.2) and of ENAS."""
MOST = 1e30
"""Magnitude of a reward: sums, means and squares of rewards then stay finite, and so do charts of them and, in
float32, a controller's loss."""


@dataclass(frozen=True)
class Objective:
    """The metric that counts: more of it, or less of it."""

    name: str
    direction: Direction


class Reward(Options):
    """How a metric becomes a reward. In a config a word, `cubed`, or a mapping, `{kind: inverse_square, scale: 40}`.

    identity: the metric, of a minimised one its negative. cubed: the cube of that (Zoph & Le 2017, section 4.1).
    inverse, inverse_square: scale / metric and scale / metric^2, of a minimised metric (ENAS; Zoph & Le 2017, section
    4.2). package.module:function: what that function returns of the metric.
    """

    kind: str = "identity"
    scale: float | None = Field(None, gt=0)
    """The papers' constant c, 80 unless it is said; of the two inverse kinds alone."""

    @model_validator(mode="before")
    @classmethod
    def _word(cls, data: Any) -> Any:
        data = {"kind": data} if isinstance(data, str) else data
        if isinstance(data, dict) and data.get("kind") in _INVERSE and data.get("scale") is None:
            return {**data, "scale": _SCALE}
        return data

    @model_validator(mode="after")
    def _is_there(self) -> Self:
        if ":" in self.kind:
            _function(self.kind)
        elif self.kind not in _KINDS:
            hint = nearest(self.kind, _KINDS, what="reward")
            raise ValueError(f"unknown reward {self.kind!r}: {hint}; your own is written 'package.module:function'")
        if self.scale is not None and self.kind not in _INVERSE:
            raise ValueError(f"scale is for {' and '.join(_INVERSE)}, not for {self.kind!r}")
        return self

    def wrong_for(self, objective: Objective) -> str | None:
        """Why it makes no sense for this metric."""
        if self.kind in _INVERSE and objective.direction == "max":
            return f"{self.kind!r} falls with the metric, and {objective.name!r} is to be maximised"
        return None

    def of(self, metric: float, direction: Direction) -> float:
        """The reward of a metric. Raises whatever the user's function raises."""
        if self.kind == "inverse":
            assert self.scale is not None
            return self.scale / metric
        if self.kind == "inverse_square":
            assert self.scale is not None
            return self.scale / metric**2
        if self.kind in _KINDS:
            directed = metric if direction == "max" else -metric
            return directed if self.kind == "identity" else directed**3
        return _function(self.kind)(metric)


@dataclass(frozen=True)
class Judged:
    """An evaluation as the job sees it. metric: the one that counts; reward: made of it; test: the same metric on the
    test set, where it was measured. All None of a failed child."""

    evaluation: Evaluation
    metric: float | None = None
    reward: float | None = None
    test: float | None = None


def judge(evaluation: Evaluation, objective: Objective, reward: Reward) -> Judged:
    """What an evaluation is worth. A reward that cannot be computed makes the child a failed one."""
    if evaluation.status != "ok":
        return Judged(evaluation)
    if objective.name not in evaluation.metrics:
        return Judged(without_objective(objective.name, evaluation.metrics, evaluation.seconds))
    metric, test = evaluation.metrics[objective.name], evaluation.metrics.get(f"{TEST}{objective.name}")
    try:
        value = float(plain_value("reward", reward.of(metric, objective.direction)))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # the user's function may call sys.exit
        return _unjudged(evaluation, f"reward {reward.kind!r} of {metric}: {type(error).__name__}: {error}")
    if not math.isfinite(value):
        return _unjudged(evaluation, f"reward {reward.kind!r} of {metric} is {value}")
    if abs(value) > MOST:
        return _unjudged(evaluation, f"reward {reward.kind!r} of {metric} is {value:g}, beyond {MOST:g}")
    return Judged(evaluation, float(metric), value, None if test is None else float(test))


def without_objective(objective: str, metrics: Mapping[str, float], seconds: float) -> Evaluation:
    """What a child has come to that did not measure the metric which counts."""
    known = ", ".join(metrics) or "none"
    return Evaluation.failure("bad_result", f"no metric {objective!r}, which counts; it has {known}", seconds)


def _unjudged(evaluation: Evaluation, message: str) -> Judged:
    return Judged(Evaluation.failure("bad_reward", message, evaluation.seconds))


def _function(kind: str) -> Callable[[float], float]:
    """The user's function. Raises ValueError when it is not there."""
    module_name, _, name = kind.partition(":")
    try:
        module = imported(module_name)
    except NotImported as error:
        raise ValueError(f"reward {kind!r}: {error}") from error
    found = getattr(module, name, None)
    if not callable(found):
        names = [n for n, value in vars(module).items() if callable(value) and not n.startswith("_")]
        raise ValueError(
            f"reward {kind!r}: {module_name} has no function {name!r}; {nearest(name, names, what='name')}"
        )
    function: Callable[[float], float] = found
    return function
