"""The interface of a dataset: whole arrays in memory, as children are trained from them (no per-image objects)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nas_cluster.core.component import Component
from nas_cluster.core.errors import DataError
from nas_cluster.core.task import ImageTask, Task

__all__ = ["Dataset", "ImageArrays"]


@dataclass(frozen=True)
class ImageArrays:
    """Images uint8 (N, height, width, channels), labels int64 (N) in 0..classes-1; read-only, maybe memory-mapped."""

    x_train: NDArray[np.uint8]
    y_train: NDArray[np.int64]
    x_test: NDArray[np.uint8]
    y_test: NDArray[np.int64]
    classes: int

    @property
    def task(self) -> ImageTask:
        """What a child must fit."""
        _, height, width, channels = self.x_train.shape
        return ImageTask(height=height, width=width, channels=channels, classes=self.classes)

    def check(self, where: str) -> ImageArrays:
        """Itself, when it is what this class says and every class has training images.

        Raises DataError, one line that begins with `where`.
        """
        for part, x, y in (("train", self.x_train, self.y_train), ("test", self.x_test, self.y_test)):
            if x.dtype != np.uint8 or x.ndim != 4 or x.size == 0:
                raise DataError(f"{where}: x_{part} must be uint8 (N, H, W, C) and not empty, is {x.dtype} {x.shape}")
            if y.dtype != np.int64 or y.shape != (len(x),):
                raise DataError(f"{where}: y_{part} must be {len(x)} integers, is {y.dtype} {y.shape}")
            for label in (y.min(), y.max()):
                if not 0 <= label < self.classes:
                    raise DataError(f"{where}: y_{part} has label {label}; labels are 0 to {self.classes - 1}")
        if self.x_train.shape[1:] != self.x_test.shape[1:]:
            raise DataError(f"{where}: x_train has images {self.x_train.shape[1:]}, x_test {self.x_test.shape[1:]}")
        present = np.unique(self.y_train)
        if len(present) != self.classes:
            absent = next((i for i, label in enumerate(present) if i != label), len(present))
            raise DataError(f"{where}: y_train has no label {absent}; each of 0 to {self.classes - 1} must occur")
        return self


class Dataset(Component, ABC):
    """A source of images. `load` reads or downloads it; everything after that works on the arrays."""

    package: ClassVar[str] = "nas_cluster.datasets"
    word: ClassVar[str] = "dataset"
    task_type: ClassVar[type[Task]] = ImageTask

    @abstractmethod
    def load(self) -> ImageArrays:
        """Read the whole dataset. Raises DataError: what was looked for, where, and what to do."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What decides the content of the arrays (kind, resolved paths, sizes and times of files): the cache key."""
