"""What nas_cluster 0.1 wrote into configs and journals, in today's words. Plain data in, plain data out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nas_cluster.core.errors import ConfigError
from nas_cluster.core.evaluation import TEST, Evaluation

__all__ = ["OldReward", "read_estimator", "read_evaluation"]

_PERPLEXITY = ("train_language_model", "shared_language_model")
_BUILT_IN = ("train", "shared_weights", "hypernetwork", *_PERPLEXITY)
"""Kinds whose reward was a setting of the estimator; somebody's own may have such settings, and keeps them."""
_COUNTING = {"train": ("last", "best", "max_of_last_5"), "train_language_model": ("last", "best")}
"""Kinds that had an option `metric`, which epoch counts, and what it could be."""
_REWARDS = {
    "accuracy": "identity",
    "accuracy_cubed": "cubed",
    "inverse_perplexity": "inverse",
    "inverse_square_perplexity": "inverse_square",
}
_DEFAULTS = {"train_language_model": "inverse_square_perplexity", "shared_language_model": "inverse_perplexity"}


@dataclass(frozen=True)
class OldReward:
    """The job's reward that an estimator's section spoke of, in today's words. default: it is the estimator's own."""

    rule: dict[str, Any]
    default: bool


def read_estimator(section: Any) -> tuple[Any, OldReward | None]:
    """An estimator's section as it is written today, and the reward that it spoke of; None: of none. What is not of 0.1
    comes back as it is, and so does a reward that 0.1 did not know.

    Raises ConfigError, the line beginning with the key that stands in the section, for an old option whose value is
    wrong or is said again by its new name, and differently.
    """
    if not isinstance(section, Mapping) or section.get("kind") not in (*_BUILT_IN, "simulated"):
        return section, None
    kind, found = section["kind"], dict(section)
    if kind in _COUNTING and "metric" in found:
        found["counts"] = _counts(kind, found.pop("metric"), found)
    default = _DEFAULTS.get(kind, "accuracy")
    word, scale = found.get("reward", default), found.get("reward_scale")
    if kind not in _BUILT_IN or not isinstance(word, str) or word not in _REWARDS:
        return found, None
    if not {"reward", "reward_scale"} & found.keys():
        return found, None
    if (kind in _PERPLEXITY) != ("perplexity" in word) or (scale is not None and kind not in _PERPLEXITY):
        return found, None
    found.pop("reward", None)
    found.pop("reward_scale", None)
    rule = {"kind": _REWARDS[word], **({} if scale is None else {"scale": scale})}
    return found, OldReward(rule, default=word == default and scale in (None, 80.0))


def _counts(kind: str, metric: Any, section: Mapping[str, Any]) -> Any:
    """What is today called `counts`."""
    if metric not in _COUNTING[kind]:
        raise ConfigError(f"metric: one of {', '.join(_COUNTING[kind])}, got {metric!r}; it is called `counts` today")
    if section.get("counts", metric) != metric:
        raise ConfigError(
            f"metric: {metric!r}, and counts: {section['counts']!r}; both say which epoch counts, leave out `metric`"
        )
    return metric


def read_evaluation(data: Mapping[str, Any], estimator: Mapping[str, Any]) -> Evaluation:
    """An evaluation in a journal of 0.1, which has one metric without a name, or of today.

    estimator: the section of the one that made it.
    """
    now = {key: data[key] for key in ("status", "cause", "message")}
    if "metrics" in data:
        return Evaluation(metrics=data["metrics"], details=data["details"], **now)
    name = _metric_name(estimator)
    details = dict(data["details"])
    old = {name: data["metric"], "parameters": data["parameters"], "seconds": data["seconds"]}
    old[f"{TEST}{name}"] = details.pop("test_metric", None)
    return Evaluation({key: value for key, value in old.items() if value is not None}, details=details, **now)


def _metric_name(estimator: Mapping[str, Any]) -> str:
    """What 0.1 called the metric; somebody's own estimator may have called it otherwise, but who only looks at a run
    runs no code that its journal names."""
    return "perplexity" if estimator.get("kind") in _PERPLEXITY else "accuracy"
