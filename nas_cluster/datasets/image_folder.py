"""Your own image files: root/train/<class>/*.png and root/test/<class>/*.png (or .jpg)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from nas_cluster.core.errors import DataError
from nas_cluster.datasets._files import absent, reason
from nas_cluster.datasets.base import Dataset, ImageArrays

__all__ = ["ImageFolder"]

_SUFFIXES = {".png", ".jpg", ".jpeg"}


class ImageFolder(Dataset):
    """One folder per class, the same classes in `train` and `test`; labels follow the sorted names.

    Hidden files and folders are passed over. Images have 8 bits per channel; each is resized, its shape not kept.
    """

    root: str
    height: int = Field(32, ge=1)
    width: int = Field(32, ge=1)
    mode: Literal["RGB", "L"] = "RGB"
    """Colour, or one grey channel."""

    def identity(self) -> dict[str, Any]:
        """Every file's name, size and time."""
        listed = []
        for part in ("train", "test"):
            for _, path in self._files(part, self._classes(part)):
                found = path.stat()
                listed.append([str(path.relative_to(self._root)), found.st_size, found.st_mtime_ns])
        return {**self.model_dump(), "root": str(self._root.resolve()), "files": listed}

    def load(self) -> ImageArrays:
        """Decode and resize every image. Raises DataError: the folder or the file that is wrong."""
        classes = self._classes("train")
        odd = sorted(set(classes) ^ set(self._classes("test")))
        if odd:
            raise DataError(f"{self._root}: class {odd[0]!r} is not in both train and test")
        (x_train, y_train), (x_test, y_test) = self._part("train", classes), self._part("test", classes)
        return ImageArrays(x_train, y_train, x_test, y_test, classes=len(classes))

    @property
    def _root(self) -> Path:
        return Path(self.root).expanduser()

    def _classes(self, part: str) -> list[str]:
        """The names of the class folders, sorted."""
        for folder in (self._root, self._root / part):
            if not folder.is_dir():
                raise absent("dataset.root", folder, folder=True)
        names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
        if not names:
            raise DataError(f"{folder}: holds no folders; it must hold one per class, with its images")
        return names

    def _files(self, part: str, classes: list[str]) -> list[tuple[int, Path]]:
        """(label, file), sorted."""
        found = []
        for label, name in enumerate(classes):
            folder = self._root / part / name
            files = [p for p in folder.iterdir() if p.suffix.lower() in _SUFFIXES and not p.name.startswith(".")]
            if not files:
                raise DataError(f"{folder}: holds no image ({', '.join(sorted(_SUFFIXES))})")
            found += [(label, path) for path in sorted(files)]
        return found

    def _part(self, part: str, classes: list[str]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        files = self._files(part, classes)
        images = np.stack([self._decode(path) for _, path in files])
        return images, np.array([label for label, _ in files], np.int64)

    def _decode(self, path: Path) -> NDArray[np.uint8]:
        from PIL import Image

        try:
            with Image.open(path) as image:
                if image.mode.startswith(("I", "F")):  # Pillow would clip these, not scale them
                    raise ValueError(f"more than 8 bits per pixel, Pillow's mode {image.mode}")
                pixels = image.convert(self.mode).resize((self.width, self.height), Image.Resampling.BILINEAR)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise DataError(f"{path}: cannot be read as an image ({reason(error)})") from error
        array = np.asarray(pixels, np.uint8)
        return array if array.ndim == 3 else array[..., None]
