"""One copy of a dataset per machine: decoded once into .npy files that every worker maps into memory."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas_cluster.core.errors import DataError
from nas_cluster.core.folders import cache_root
from nas_cluster.datasets._files import reason
from nas_cluster.datasets.base import Arrays, Dataset

__all__ = ["resident"]

_SHAPES = "shapes of arrays"
"""Key of `about.json` that no field can have."""


def resident(dataset: Dataset) -> Arrays:
    """The dataset as read-only memory-mapped arrays, shared by all processes of this machine through the page cache.

    The first call decodes it, others wait for that. What is no array comes back as JSON gives it, a tuple as a list.
    Raises DataError as `dataset.load` does, when what it loads is not what its `arrays_type` says or has a field
    that cannot be kept, and when the cache folder cannot be used.
    """
    text = json.dumps(dataset.identity(), sort_keys=True)
    folder = cache_root() / "datasets" / hashlib.sha256(text.encode()).hexdigest()[:24]
    mapped = _mapped(folder, dataset.arrays_type)
    if mapped is not None:
        return mapped
    with _locked(folder):
        mapped = _mapped(folder, dataset.arrays_type)  # another process may have been first
        if mapped is None:
            where = f"dataset {dataset.kind}"
            data = dataset.load().check(where)
            arrays, about = _storable(data, dataset.arrays_type, where)
            with _cache_errors(folder):
                _write(folder, arrays, about)
            mapped = _mapped(folder, dataset.arrays_type)
    if mapped is None:
        raise DataError(f"{folder}: was written and cannot be read back; is the disk sound?")
    return mapped


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of one cache entry, which lies beside it."""
    with _cache_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = folder.with_suffix(".lock").open("w")
    with lock:
        with _cache_errors(folder):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _cache_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"cannot keep the decoded dataset in {folder.parent} ({reason(error)}); "
            "let NAS_CLUSTER_CACHE name a folder that can be written and has room"
        ) from error


def _mapped(folder: Path, arrays_type: type[Arrays]) -> Arrays | None:
    """The arrays of a complete cache entry; None when there is none, or it is damaged in whatever way."""
    try:
        about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
        shapes = about.pop(_SHAPES)
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in shapes}
        if any(list(arrays[name].shape) != shape for name, shape in shapes.items()):
            return None
        return arrays_type(**arrays, **about)
    except (OSError, ValueError, EOFError, KeyError, TypeError, AttributeError):
        return None


def _storable(data: Arrays, arrays_type: type[Arrays], where: str) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """The parts of what a dataset has loaded. Raises DataError for a field that a file would not give back."""
    if type(data) is not arrays_type:
        raise DataError(f"{where}: load gave {type(data).__name__}, its arrays_type is {arrays_type.__name__}")
    arrays, rest = data.parts()
    for name, array in arrays.items():
        if array.dtype.hasobject:
            raise DataError(
                f"{where}: {name} is an array of Python objects; it must be one of numbers or fixed strings"
            )
    for name, value in rest.items():
        if not _survives_json(value):
            raise DataError(f"{where}: {name} is no array and nothing that JSON can hold ({type(value).__name__})")
    return arrays, rest


def _survives_json(value: Any) -> bool:
    try:
        again = json.loads(json.dumps(value))
    except (TypeError, ValueError):
        return False
    return bool(again == (list(value) if isinstance(value, tuple) else value))


def _write(folder: Path, arrays: Mapping[str, NDArray[Any]], about: Mapping[str, Any]) -> None:
    """Write an entry that appears whole or not at all; a damaged one is replaced. Call with the lock held."""
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed here
    partial.mkdir()
    try:
        for name, array in arrays.items():
            np.save(partial / f"{name}.npy", array)
        shapes = {name: list(array.shape) for name, array in arrays.items()}
        (partial / "about.json").write_text(json.dumps({**about, _SHAPES: shapes}), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
