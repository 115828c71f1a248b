"""YAML 1.2 files and KEY=VALUE overrides to plain data, within limits that keep a hostile file harmless."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, ScalarEvent

from nas_cluster.core.errors import ConfigError, nearest

__all__ = ["apply_overrides", "parse_yaml", "read_yaml", "write_yaml"]

_MAX_BYTES = 1 << 20
_MAX_DEPTH = 32
_MAX_ALIASES = 100
_MAX_NODES = 20_000
"""More values than any job has; aliases count each time they are used."""


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises ConfigError: file, line, what is wrong."""
    if path.is_dir():
        raise ConfigError(f"{path}: is a directory, a YAML file is needed")
    if not path.exists():
        siblings = [p.name for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        hint = f"; {nearest(path.name, siblings, what='file')}" if siblings else ""
        raise ConfigError(f"{path}: no such file{hint}")
    if path.stat().st_size > _MAX_BYTES:
        raise ConfigError(f"{path}: larger than {_MAX_BYTES} bytes; a job's config is a page")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as UTF-8 text: {error}") from error
    data = parse_yaml(text, source=str(path))
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: a job is a mapping of sections ('name: ...'), not {type(data).__name__}")
    return data


def parse_yaml(text: str, *, source: str) -> Any:
    """Plain data (dict, list, str, int, float, bool, None). Duplicate keys, custom tags and merge keys are refused."""
    try:
        _check_events(text, source)
        data = YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        problem = (error.problem or str(error)).splitlines()[0]
        raise ConfigError(f"{source}{line}: {problem}") from error
    except (YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{source}: {(str(error).splitlines() or [type(error).__name__])[0]}") from error
    _check_size(data, source)
    return data


def _check_events(text: str, source: str) -> None:
    """Before anything is built of it: a merge key (`<<`, no part of YAML 1.2) copies what it names, and ten that name
    ten others each are too many for any memory."""
    depth = aliases = 0
    for event in YAML(typ="safe", pure=True).parse(StringIO(text)):
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        aliases += isinstance(event, AliasEvent)
        line = event.start_mark.line + 1
        if depth > _MAX_DEPTH or aliases > _MAX_ALIASES:
            limit = f"{_MAX_DEPTH} levels" if depth > _MAX_DEPTH else f"{_MAX_ALIASES} aliases"
            raise ConfigError(f"{source}:{line}: nested or aliased beyond {limit}")
        if isinstance(event, ScalarEvent) and event.value == "<<" and event.style is None:
            raise ConfigError(f"{source}:{line}: merge keys ('<<') are not read; write the section out")


def _check_size(data: Any, source: str) -> None:
    """Walk without recursion, so that neither depth, aliases to oneself nor alias bombs can exhaust us."""
    pending = [(data, 1)]
    seen = 0
    while pending:
        value, depth = pending.pop()
        seen += 1
        if depth > _MAX_DEPTH or seen > _MAX_NODES:
            limit = f"{_MAX_DEPTH} levels" if depth > _MAX_DEPTH else f"{_MAX_NODES} values"
            raise ConfigError(f"{source}: nested or aliased beyond {limit}")
        if isinstance(value, dict):
            for key in value:
                if not isinstance(key, str):
                    raise ConfigError(f"{source}: key {key!r} must be a word, not {type(key).__name__}")
            pending += [(v, depth + 1) for v in value.values()]
        elif isinstance(value, list):
            pending += [(v, depth + 1) for v in value]


def apply_overrides(data: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Set dotted keys: `topology.slots=4`, `space.filters=[24, 36]`. Values are YAML."""
    result = copy.deepcopy(dict(data))
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key.strip(".") or ".." in key:
            raise ConfigError(f"override {text!r}: write KEY=VALUE, for instance budget.max_children=100")
        *path, last = key.split(".")
        target = result
        for part in path:
            inner = target.get(part)
            if isinstance(inner, str):
                inner = {"kind": inner}
            elif inner is None:
                inner = {}
            elif not isinstance(inner, dict):
                raise ConfigError(f"override {text!r}: {part!r} is a value, not a section")
            target[part] = inner
            target = inner
        target[last] = parse_yaml(value, source=f"override {text!r}")
    return result


def write_yaml(data: Mapping[str, Any]) -> str:
    """YAML text of plain data, keys in the given order."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    stream = StringIO()
    yaml.dump(dict(data), stream)
    return stream.getvalue()
