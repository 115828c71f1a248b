"""What a submitted job carries to its cluster: this package, the config, the user's own modules and relative data.

A relative path in a config travels with the job; an absolute one, or a URL, is a place that the nodes know.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nas_cluster.config import JobConfig
from nas_cluster.config.loading import write_yaml
from nas_cluster.core.errors import ConfigError

__all__ = ["JOB_FILE", "pack", "pack_package"]

JOB_FILE = "job.yaml"
_MOST_BYTES = 100_000_000
"""What Ray brings to every node in reasonable time; larger data has its place on storage that the nodes share."""
_WITH_DATA = ("dataset", "space", "estimator", "retrain", "finalize")
_NOT_PATHS = ("kind", "name")
_LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc", ".git", ".gitignore", ".venv", ".*_cache")


def pack(config: JobConfig, folder: Path, include: Sequence[Path] = ()) -> list[str]:
    """Make `folder` anew with all that the job needs; names of what is the user's own in it.

    include: further files and folders below the current one. Raises ConfigError when something is too large, or lies
    elsewhere.
    """
    here = Path.cwd()
    pack_package(folder)
    (folder / JOB_FILE).write_text(write_yaml(config.to_dict()), encoding="utf-8")
    data = config.to_dict()
    sources = {path.relative_to(here): path for path in _data(data, here)}
    for path in _modules(data):
        sources[Path(path.name)] = path
    for path in include:
        full = path.absolute()
        if not full.exists() or not full.resolve().is_relative_to(here.resolve()):
            raise ConfigError(f"{path}: no file or folder below {here}; only such can travel with a job")
        sources[full.relative_to(here)] = full
    for target, source in sources.items():
        _copy(source, folder / target)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if size > _MOST_BYTES:
        largest = max(sources.values(), key=_size)
        raise ConfigError(
            f"{largest}: a job carries at most {_MOST_BYTES // 10**6} MB, this is {_size(largest) / 1e6:.0f}; "
            "put it on storage that all nodes see and give its absolute path"
        )
    return sorted(str(target) for target in sources)


def pack_package(folder: Path) -> None:
    """Make `folder` anew with this package alone."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _copy(Path(__file__).parent, folder / "nas_cluster")


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=_LEFT_OUT, dirs_exist_ok=True)
    else:
        shutil.copy2(source, target)


def _size(path: Path) -> int:
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file()) if path.is_dir() else path.stat().st_size


def _data(config: Mapping[str, Any], here: Path) -> list[Path]:
    """Files and folders that the config names by a relative path."""
    found = []
    for section in _WITH_DATA:
        for key, value in _strings(config.get(section)):
            path = here / value
            if key in _NOT_PATHS or not value or Path(value).is_absolute() or value.startswith("~"):
                continue
            if path.exists() and path.resolve() != here.resolve() and path.resolve().is_relative_to(here.resolve()):
                found.append(path)
    return found


def _modules(config: Mapping[str, Any]) -> list[Path]:
    """The user's own modules: those the config names, and what lies beside them and is imported by now."""
    named = {
        value.partition(":")[0].partition(".")[0] for key, value in _strings(config) if key == "kind" and ":" in value
    }
    roots = {place.parent for name in named if (place := _place(name)) is not None}
    beside = {name.partition(".")[0] for name in list(sys.modules)} | named
    places = (place for name in sorted(beside) if (place := _place(name)) is not None)
    return [place for place in places if place.parent in roots]


def _place(name: str) -> Path | None:
    """File or folder of a top-level module, when it is neither installed nor ours."""
    if name in sys.builtin_module_names or name in ("__main__", "nas_cluster"):
        return None
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.origin or spec.origin in ("built-in", "frozen"):
        return None
    path = Path(spec.origin)
    installed = {Path(sysconfig.get_path(key)).resolve() for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    if any(path.resolve().is_relative_to(root) for root in installed):
        return None
    return path.parent if path.name == "__init__.py" else path


def _strings(data: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """(key, value) of every string in plain data; of a list each has the list's key."""
    if isinstance(data, str):
        yield key, data
    elif isinstance(data, Mapping):
        for name, value in data.items():
            yield from _strings(value, name)
    elif isinstance(data, Sequence):
        for value in data:
            yield from _strings(value, key)
