"""IDX files (MNIST's format), plain or gzipped, as Debian's `dataset-fashion-mnist` lays them in one folder."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas_cluster.core.errors import DataError
from nas_cluster.datasets._files import absent, reason
from nas_cluster.datasets._torchvision import TorchvisionDataset
from nas_cluster.datasets.base import ImageArrays

__all__ = ["IdxDataset", "read_idx"]

_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


class IdxDataset(TorchvisionDataset):
    """Four IDX files: in `root` itself, otherwise where torchvision keeps (and downloads) them below it."""

    def load(self) -> ImageArrays:
        """Grey images with one channel. Raises DataError: missing or broken file."""
        folder = self.folder
        if not any(_find(folder, name) for name in _FILES):
            folder = self.folder / self.torchvision_name / "raw"
            if not all(_find(folder, name) for name in _FILES):
                self._open(train=True)
        x_train, y_train, x_test, y_test = (self._read(folder, name) for name in _FILES)
        for part, images, labels in (("train", x_train, y_train), ("t10k", x_test, y_test)):
            if images.ndim != 3 or labels.ndim != 1:
                raise DataError(f"{folder}: the {part} files hold {images.shape} images and {labels.shape} labels")
        return ImageArrays(
            x_train[..., None],
            y_train.astype(np.int64),
            x_test[..., None],
            y_test.astype(np.int64),
            classes=self.classes,
        ).check(str(folder))

    def identity(self) -> dict[str, Any]:
        """Also the sizes and times of the files, where they lie in `root`."""
        paths = [path for path in (_find(self.folder, name) for name in _FILES) if path]
        return {**super().identity(), "files": [[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in paths]}

    def _read(self, folder: Path, name: str) -> NDArray[np.uint8]:
        path = _find(folder, name)
        if path is None:
            raise absent(f"dataset {self.kind}", folder / f"{name}.gz")
        return read_idx(path)


def _find(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / f"{name}.gz", folder / name) if path.is_file()), None)


def read_idx(path: Path) -> NDArray[np.uint8]:
    """The unsigned bytes of an IDX file. Raises DataError when it is not one, or is cut short."""
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({reason(error)}); copy or download it again") from error
    if len(data) < 4 or data[:3] != b"\x00\x00\x08":
        raise DataError(f"{path}: is not an IDX file of bytes (magic number {data[:4].hex() or 'missing'})")
    dimensions = data[3]
    head = 4 + 4 * dimensions
    shape = tuple(int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(dimensions))
    if len(data) != head + math.prod(shape):
        raise DataError(f"{path}: {len(data)} bytes, its head promises {head + math.prod(shape)}; copy it again")
    return np.frombuffer(data, np.uint8, offset=head).reshape(shape)
