"""Your own image files: root/train/<class>/*.png and root/test/<class>/*.png (or .jpg)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from nas_cluster.core.errors import DataError
from nas_cluster.datasets.base import Dataset, ImageArrays

__all__ = ["ImageFolder"]

_SUFFIXES = {".png", ".jpg", ".jpeg"}


class ImageFolder(Dataset):
    """One folder per class, the same classes in `train` and `test`; labels follow the sorted names."""

    root: str
    height: int = Field(32, ge=1)
    width: int = Field(32, ge=1)
    mode: Literal["RGB", "L"] = "RGB"
    """Colour, or one grey channel."""

    def identity(self) -> dict[str, Any]:
        """Every file's name, size and time."""
        files = [path for part in ("train", "test") for _, path in self._files(part)]
        listed = [[str(p.relative_to(self._root)), p.stat().st_size, p.stat().st_mtime_ns] for p in files]
        return {**self.model_dump(), "root": str(self._root.resolve()), "files": listed}

    def load(self) -> ImageArrays:
        """Decode and resize every image. Raises DataError: the folder or the file that is wrong."""
        classes = self._classes("train")
        if self._classes("test") != classes:
            odd = sorted(set(classes) ^ set(self._classes("test")))[0]
            raise DataError(f"{self._root}: class {odd!r} is not in both train and test")
        (x_train, y_train), (x_test, y_test) = self._part("train", classes), self._part("test", classes)
        return ImageArrays(x_train, y_train, x_test, y_test, classes=len(classes))

    @property
    def _root(self) -> Path:
        return Path(self.root).expanduser()

    def _classes(self, part: str) -> list[str]:
        folder = self._root / part
        if not folder.is_dir():
            raise DataError(f"dataset.root: no folder {folder.absolute()}; it must hold one folder per class")
        names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
        if not names:
            raise DataError(f"{folder}: holds no class folders")
        return names

    def _files(self, part: str) -> list[tuple[str, Path]]:
        """(class, file), sorted."""
        found = []
        for name in self._classes(part):
            folder = self._root / part / name
            files = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)
            if not files:
                raise DataError(f"{folder}: holds no image ({', '.join(sorted(_SUFFIXES))})")
            found += [(name, path) for path in files]
        return found

    def _part(self, part: str, classes: list[str]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        files = self._files(part)
        images = np.stack([self._decode(path) for _, path in files])
        return images, np.array([classes.index(name) for name, _ in files], np.int64)

    def _decode(self, path: Path) -> NDArray[np.uint8]:
        from PIL import Image

        try:
            with Image.open(path) as image:
                pixels = image.convert(self.mode).resize((self.width, self.height), Image.Resampling.BILINEAR)
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: cannot be read as an image ({error})") from error
        array = np.asarray(pixels, np.uint8)
        return array if array.ndim == 3 else array[..., None]
