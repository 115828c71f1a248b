"""What nas_cluster 0.1 wrote into configs and journals, in today's words. Plain data in, plain data out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nas_cluster.core.evaluation import TEST, Evaluation

__all__ = ["read_estimator", "read_evaluation"]

_PERPLEXITY = ("train_language_model", "shared_language_model")
_BUILT_IN = ("train", "shared_weights", "hypernetwork", *_PERPLEXITY)
"""Kinds whose reward was a setting of the estimator; somebody's own may have such settings, and keeps them."""
_COUNTING = ("train", "train_language_model")
"""Kinds that had an option `metric`, which epoch counts."""
_REWARDS = {
    "accuracy": "identity",
    "accuracy_cubed": "cubed",
    "inverse_perplexity": "inverse",
    "inverse_square_perplexity": "inverse_square",
}
_DEFAULTS = {"train_language_model": "inverse_square_perplexity", "shared_language_model": "inverse_perplexity"}


def read_estimator(section: Any) -> tuple[Any, dict[str, Any] | None]:
    """An estimator's section as it is written today, and the job's reward that it spoke of; None: the estimator's
    default. What is not of 0.1 comes back as it is, and so does a reward that 0.1 did not know."""
    if not isinstance(section, Mapping) or section.get("kind") not in (*_BUILT_IN, "simulated"):
        return section, None
    kind, found = section["kind"], dict(section)
    if kind in _COUNTING and "metric" in found:
        found["counts"] = found.pop("metric")
    default = _DEFAULTS.get(kind, "accuracy")
    word, scale = found.get("reward", default), found.get("reward_scale")
    if kind not in _BUILT_IN or word not in _REWARDS or not {"reward", "reward_scale"} & found.keys():
        return found, None
    if (kind in _PERPLEXITY) != ("perplexity" in word) or (scale is not None and kind not in _PERPLEXITY):
        return found, None
    found.pop("reward", None)
    found.pop("reward_scale", None)
    if word == default and scale in (None, 80.0):
        return found, None
    return found, {"kind": _REWARDS[word], **({} if scale is None else {"scale": scale})}


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
