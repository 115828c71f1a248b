"""IDX files (MNIST's format), plain or gzipped, as Debian's `dataset-fashion-mnist` lays them in one folder."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas_cluster.core.errors import DataError
from nas_cluster.datasets._torchvision import TorchvisionDataset
from nas_cluster.datasets.base import ImageArrays

__all__ = ["IdxDataset", "read_idx"]

_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


class IdxDataset(TorchvisionDataset):
    """A dataset of four IDX files: read from `root` where they lie there, otherwise through torchvision."""

    def load(self) -> ImageArrays:
        """Grey images with one channel. Raises DataError: missing or broken file."""
        found = [_find(self.folder, name) for name in _FILES]
        if not any(found):
            return super().load()
        missing = [name for name, path in zip(_FILES, found, strict=True) if path is None]
        if missing:
            raise DataError(f"dataset {self.kind}: {self.folder} has no {missing[0]}[.gz] beside the other IDX files")
        x_train, y_train, x_test, y_test = (read_idx(path) for path in found if path is not None)
        for name, images, labels in (("train", x_train, y_train), ("t10k", x_test, y_test)):
            if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
                raise DataError(f"{self.folder}: the {name} files hold {images.shape} images and {labels.shape} labels")
        x_train, x_test = x_train[..., None], x_test[..., None]
        return ImageArrays(x_train, y_train.astype(np.int64), x_test, y_test.astype(np.int64), classes=self.classes)

    def identity(self) -> dict[str, Any]:
        """Also the sizes and times of the files, where they lie in `root`."""
        paths = [path for path in (_find(self.folder, name) for name in _FILES) if path]
        return {**super().identity(), "files": [[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in paths]}

    def _arrays(self, part: Any) -> tuple[Any, Any]:
        return part.data.numpy()[..., None], part.targets.numpy()


def _find(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / f"{name}.gz", folder / name) if path.is_file()), None)


def read_idx(path: Path) -> NDArray[np.uint8]:
    """The unsigned bytes of an IDX file. Raises DataError when it is not one, or is cut short."""
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be decompressed ({error}); copy or download it again") from error
    if len(data) < 4 or data[:3] != b"\x00\x00\x08":
        raise DataError(f"{path}: is not an IDX file of bytes (magic number {data[:4].hex() or 'missing'})")
    dimensions = data[3]
    head = 4 + 4 * dimensions
    shape = tuple(int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(dimensions))
    if len(data) != head + int(np.prod(shape)):
        raise DataError(f"{path}: {len(data) - head} bytes of data for shape {shape}; it is cut short or too long")
    return np.frombuffer(data, np.uint8, offset=head).reshape(shape)
