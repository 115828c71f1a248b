"""What a continued run may change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nas_cluster.core.errors import ConfigError

__all__ = ["RESUMABLE", "check_continuation", "difference"]

RESUMABLE = ("budget", "topology", "failures", "retrain", "finalize", "correlate")
"""Sections a continued run may change; everything else would make it another search."""

_ROUNDS = ("topology.controller_replicas", "topology.children_per_replica")
"""What the rounds of a synchronous run are made of."""

Difference = Mapping[str, tuple[Any, Any]]
"""{dotted key: (new, old)}"""


def difference(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Dotted keys whose values differ: {key: (mine, theirs)}.

    >>> difference({"budget": {"max_children": 9}, "seed": 0}, {"budget": {"max_children": 5}, "seed": 0})
    {'budget.max_children': (9, 5)}
    """
    one, other = _flat(mine), _flat(theirs)
    return {key: (one.get(key), other.get(key)) for key in sorted({*one, *other}) if one.get(key) != other.get(key)}


def check_continuation(changed: Difference, *, synchronous: bool) -> None:
    """Raise ConfigError, one line for each, when any of these changes would make it another search."""
    refused = []
    for key, (new, old) in changed.items():
        section = key.partition(".")[0]
        if section not in (*RESUMABLE, "storage_path"):
            refused.append(f"{key}: the run has {old!r}, the config says {new!r}")
        elif synchronous and key in _ROUNDS:
            refused.append(f"{key}: {old!r} to {new!r} would change the rounds of a synchronous run")
    if refused:
        allowed = ", ".join(RESUMABLE)
        refused.append(f"a continued run may change only {allowed}; use another name to start afresh")
        raise ConfigError("\n".join(refused))


def _flat(data: Any, prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} to {"a.b": 1}; lists are values."""
    if not isinstance(data, dict):
        return {prefix: data}
    result: dict[str, Any] = {}
    for key, value in data.items():
        result |= _flat(value, f"{prefix}.{key}" if prefix else key)
    return result
