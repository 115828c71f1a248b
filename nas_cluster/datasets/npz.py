"""Your own arrays: one .npz file with x_train, y_train, x_test, y_test."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas_cluster.core.errors import DataError, nearest
from nas_cluster.datasets.base import Dataset, ImageArrays

__all__ = ["Npz"]

_NAMES = ("x_train", "y_train", "x_test", "y_test")


class Npz(Dataset):
    """Images uint8 (N, H, W) or (N, H, W, C), labels of any integer type, 0 to classes - 1."""

    path: str

    @property
    def file(self) -> Path:
        """The file, a `~` resolved."""
        return Path(self.path).expanduser()

    def identity(self) -> dict[str, Any]:
        """The file's place, size and time."""
        self._check_exists()
        found = self.file.stat()
        return {"kind": "npz", "path": str(self.file.resolve()), "size": found.st_size, "time": found.st_mtime_ns}

    def load(self) -> ImageArrays:
        """Read and check all four arrays. Raises DataError: which array, what is wrong."""
        self._check_exists()
        try:
            with np.load(self.file, allow_pickle=False) as arrays:
                missing = [name for name in _NAMES if name not in arrays]
                if missing:
                    raise DataError(f"{self.file}: has no array {missing[0]!r}; it holds {', '.join(arrays) or 'none'}")
                x_train, y_train, x_test, y_test = (arrays[name] for name in _NAMES)
        except (ValueError, OSError, zipfile.BadZipFile, EOFError, AttributeError) as error:
            raise DataError(f"{self.file}: is not a readable .npz file of plain arrays ({error})") from error
        x_train, x_test = self._images("x_train", x_train), self._images("x_test", x_test)
        y_train = self._labels("y_train", y_train, len(x_train))
        y_test = self._labels("y_test", y_test, len(x_test))
        if x_train.shape[1:] != x_test.shape[1:]:
            raise DataError(f"{self.file}: x_train has images {x_train.shape[1:]}, x_test {x_test.shape[1:]}")
        classes = int(y_train.max()) + 1
        if y_test.max() >= classes:
            raise DataError(f"{self.file}: y_test has label {y_test.max()}, y_train only 0 to {classes - 1}")
        return ImageArrays(x_train, y_train, x_test, y_test, classes=classes)

    def _check_exists(self) -> None:
        if self.file.is_file():
            return
        if self.file.is_dir():
            raise DataError(f"dataset.path: {self.file} is a folder, an .npz file is needed")
        near = [p.name for p in self.file.parent.glob("*.npz")] if self.file.parent.is_dir() else []
        hint = f"; {nearest(self.file.name, near, what='file')}" if near else ""
        raise DataError(f"dataset.path: no file {self.file.absolute()}{hint}")

    def _images(self, name: str, x: NDArray[Any]) -> NDArray[np.uint8]:
        if x.dtype != np.uint8 or x.ndim not in (3, 4) or x.size == 0:
            raise DataError(f"{self.file}: {name} must be uint8 (N, H, W) or (N, H, W, C), is {x.dtype} {x.shape}")
        return x if x.ndim == 4 else x[..., None]

    def _labels(self, name: str, y: NDArray[Any], count: int) -> NDArray[np.int64]:
        if not np.issubdtype(y.dtype, np.integer) or y.shape != (count,):
            raise DataError(f"{self.file}: {name} must be {count} integers, is {y.dtype} {y.shape}")
        if y.min() < 0:
            raise DataError(f"{self.file}: {name} has label {y.min()}; labels start at 0")
        return y.astype(np.int64)
