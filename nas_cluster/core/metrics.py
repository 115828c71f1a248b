"""What a metric is: a name that is a word, and a number."""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = [
    "BadMetric",
    "check_name",
    "check_usual",
    "figure",
    "finite",
    "further_metrics",
    "plain_value",
    "plain_values",
]

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_MOST_CHARACTERS = 64
_MOST = 100
"""Metrics of one evaluation or report."""
_MOST_OF_AN_INTEGER = 2**63
"""SQLite has none from here on, nor have most readers of JSON: a larger one becomes a float."""
_FURTHER = 6
"""Metrics that a table shows beside the usual ones."""


class BadMetric(ValueError):
    """Something that is no metric; the message says which one and why."""


def check_name(name: Any) -> str:
    """Return `name`. Raises BadMetric unless it is a word of small letters, digits and underscores."""
    if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name) > _MOST_CHARACTERS:
        raise BadMetric(f"{name!r} is no name of a metric; write small letters, digits and '_', as in 'top_5_accuracy'")
    return name


def plain_value(name: str, value: Any) -> float:
    """`value` as an int or a float: also a scalar of numpy or torch, also one that is not finite.

    Raises BadMetric for what is no number.
    """
    if type(value) is float or (type(value) is int and abs(value) < _MOST_OF_AN_INTEGER):
        number: float = value
        return number
    plain = value
    if not isinstance(plain, numbers.Real) and hasattr(plain, "item") and math.prod(getattr(plain, "shape", (0,))) == 1:
        plain = plain.item()
    if isinstance(plain, bool) or not isinstance(plain, numbers.Real):
        raise BadMetric(f"metric {name!r} is {_described(value)}, a number is needed")
    try:
        as_float = float(plain)
    except OverflowError:
        raise BadMetric(f"metric {name!r} is an integer too large for a number") from None
    return int(plain) if isinstance(plain, numbers.Integral) and abs(int(plain)) < _MOST_OF_AN_INTEGER else as_float


def check_usual(metrics: Mapping[str, float]) -> None:
    """Raise BadMetric unless `parameters` and `seconds`, which everything counts on, are what they are taken for."""
    count, seconds = metrics.get("parameters", 0), metrics.get("seconds", 0)
    if not 0 <= count < _MOST_OF_AN_INTEGER or count != int(count):
        raise BadMetric(f"metric 'parameters' is {count!r}, a whole number from 0 to 2**63 - 1 is needed")
    if seconds < 0:
        raise BadMetric(f"metric 'seconds' is {seconds!r}, time cannot be negative")


def plain_values(metrics: Any) -> dict[str, float]:
    """All metrics as plain numbers, also those that are not finite. Raises BadMetric for the first defect."""
    if not isinstance(metrics, Mapping):
        raise BadMetric(f"metrics are {_described(metrics)}, a mapping of names to numbers is needed")
    if len(metrics) > _MOST:
        raise BadMetric(f"{len(metrics)} metrics, at most {_MOST} are kept")
    return {check_name(name): plain_value(name, value) for name, value in metrics.items()}


def finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """Those that are finite."""
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def further_metrics(evaluations: Iterable[Mapping[str, float]], objective: str) -> list[str]:
    """Names of metrics that there are beside the usual ones, which every table has; the first few."""
    found = dict.fromkeys(name for metrics in evaluations for name in metrics)
    return [name for name in found if name not in (objective, "parameters", "seconds")][:_FURTHER]


def figure(value: float | None) -> str:
    """A metric for people."""
    if value is None:
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e6 else f"{value:.4g}"


def _described(value: Any) -> str:
    """What a value is, short enough for one line."""
    shape = getattr(value, "shape", None)
    text = f"{type(value).__name__} of shape {tuple(shape)}" if shape else f"{type(value).__name__} {value!r}"
    return "None" if value is None else " ".join(text.split())[:100]
