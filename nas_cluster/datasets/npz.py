"""Your own arrays: one .npz file with x_train, y_train, x_test, y_test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas_cluster.core.errors import DataError
from nas_cluster.datasets._files import absent, reason
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
        arrays = self._read()
        y_train, y_test = self._labels("y_train", arrays), self._labels("y_test", arrays)
        classes = int(y_train.max(initial=0)) + 1
        data = ImageArrays(_nhwc(arrays["x_train"]), y_train, _nhwc(arrays["x_test"]), y_test, classes=classes)
        return data.check(str(self.file))

    def _check_exists(self) -> None:
        if not self.file.is_file():
            raise absent("dataset.path", self.file)

    def _read(self) -> dict[str, NDArray[Any]]:
        try:
            opened = np.load(self.file, allow_pickle=False)
            if isinstance(opened, np.ndarray):
                raise ValueError("it is one .npy array")
            with opened:
                held = list(opened)
                arrays = {name: opened[name] for name in _NAMES if name in held}
        except Exception as error:  # zipfile, zlib and numpy raise a dozen kinds for damaged bytes
            raise DataError(f"{self.file}: is not a readable .npz file of plain arrays ({reason(error)})") from error
        missing = [name for name in _NAMES if name not in arrays]
        if missing:
            raise DataError(f"{self.file}: has no array {missing[0]!r}; it holds {', '.join(held) or 'none'}")
        return arrays

    def _labels(self, name: str, arrays: dict[str, NDArray[Any]]) -> NDArray[np.int64]:
        y = arrays[name]
        if not np.issubdtype(y.dtype, np.integer):
            raise DataError(f"{self.file}: {name} must be integers, is {y.dtype}")
        return y.astype(np.int64)


def _nhwc(x: NDArray[Any]) -> NDArray[Any]:
    """Grey images without a channel axis get one; anything else is left to the check."""
    return x[..., None] if x.ndim == 3 else x
