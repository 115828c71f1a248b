"""Wherever an architecture is expected: a published one by name, one of a run, or one from a file.

layerwise_cnn:nas_v1        published, by its space and name
runs/quickstart:3           the third best of a run; runs/quickstart:r0-u4-i1 the child with this id
layerwise_cnn:mine.json     a file with the JSON that `top --json` or the report shows
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nas_cluster.core.component import build_component, explain, find_component
from nas_cluster.core.errors import ConfigError, RunError
from nas_cluster.spaces import Architecture, SearchSpace
from nas_cluster.storage.record import RunRecord

__all__ = ["Chosen", "choose"]

_MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class Chosen:
    """An architecture, the space that it is of, and what it is called."""

    source: str
    space: SearchSpace[Any]
    architecture: Architecture
    first_number: int = 0
    """Number from which its space was taken, when the space grows (`Child.first_number`)."""
    config: Mapping[str, Any] | None = None
    """Of the run that it is one of."""


def choose(text: str, *, space: SearchSpace[Any] | None = None, options: Mapping[str, Any] | None = None) -> Chosen:
    """The architecture that `text` names.

    space: of a job; the architecture must be of its kind, and its child options are used. options: of the space,
    without a job. Raises ConfigError or RunError, in one line, for everything that names no architecture.
    """
    place, colon, name = text.rpartition(":")
    if not colon or not name:
        raise ConfigError(f"architecture {text!r}: write space:name, RUN_DIR:rank, RUN_DIR:child_id or space:FILE.json")
    if Path(place).is_dir() or "/" in place:
        return _of_run(Path(place), name)
    if space is None or space.kind != place:
        found = find_component(SearchSpace, place)  # type: ignore[type-abstract]
        if space is not None:
            raise ConfigError(f"architecture {text!r}: the job's space is {space.kind!r}, not {found().kind!r}")
        space = build_component(SearchSpace, {"kind": place, **(options or {})}, where="space")  # type: ignore[type-abstract]
    if name.endswith(".json"):
        return Chosen(text, space, _from_file(Path(name), space))
    return Chosen(text, space, space.load_named(name))


def _of_run(directory: Path, name: str) -> Chosen:
    record = RunRecord.open(directory)
    space = build_component(SearchSpace, record.config["space"], where="space")  # type: ignore[type-abstract]
    if name.isdigit():
        best = record.top(int(name))
        row = best[-1] if 0 < int(name) == len(best) else None
    else:
        row = record.child(name)
    if row is None:
        have = f"it has {record.counts()['done']} children; ranks are 1, 2, ..., ids look like r0-u4-i1"
        raise RunError(f"{directory}: no architecture {name!r}; {have}")
    architecture = space.parse(row.child.architecture)
    return Chosen(str(row.child.child_id), space, architecture, row.child.first_number, record.config)


def _from_file(path: Path, space: SearchSpace[Any]) -> Architecture:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError(f"larger than {_MAX_BYTES} bytes")
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: is not a readable JSON file ({str(error).splitlines()[0]})") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: an architecture is a JSON object, not {type(data).__name__}")
    try:
        architecture: Architecture = space.parse(data)
    except ValidationError as error:
        lines = explain(error, space.architecture_type, str(path))
        raise ConfigError(lines[0]) from error
    return architecture
