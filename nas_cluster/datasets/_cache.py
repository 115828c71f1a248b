"""One copy of a dataset per machine: decoded once into .npy files that every worker maps into memory."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np

from nas_cluster.core.folders import cache_root
from nas_cluster.datasets.base import Dataset, ImageArrays

__all__ = ["resident"]

_ARRAYS = ("x_train", "y_train", "x_test", "y_test")


def resident(dataset: Dataset) -> ImageArrays:
    """The dataset as read-only memory-mapped arrays, shared by all processes of this machine through the page cache.

    The first call decodes it, others wait for that. Raises DataError as `dataset.load` does.
    """
    text = json.dumps(dataset.identity(), sort_keys=True)
    folder = cache_root() / "datasets" / hashlib.sha256(text.encode()).hexdigest()[:24]
    mapped = _mapped(folder)
    if mapped is not None:
        return mapped
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        mapped = _mapped(folder)  # another process may have been first
        if mapped is None:
            _write(folder, dataset.load())
            mapped = _mapped(folder)
    if mapped is None:
        raise OSError(f"{folder}: was written and cannot be read back")
    return mapped


def _mapped(folder: Path) -> ImageArrays | None:
    """The arrays of a complete cache entry, or None."""
    try:
        about = json.loads((folder / "about.json").read_text())
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in _ARRAYS}
    except (OSError, ValueError, EOFError):
        return None
    if any(list(arrays[name].shape) != about["shapes"][name] for name in _ARRAYS):
        return None
    return ImageArrays(**arrays, classes=about["classes"])


def _write(folder: Path, data: ImageArrays) -> None:
    """Write an entry that appears whole or not at all; a damaged one is replaced."""
    temporary = Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        for name in _ARRAYS:
            np.save(temporary / f"{name}.npy", getattr(data, name))
        shapes = {name: list(getattr(data, name).shape) for name in _ARRAYS}
        (temporary / "about.json").write_text(json.dumps({"classes": data.classes, "shapes": shapes}))
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
