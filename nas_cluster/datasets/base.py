"""The interface of a dataset: whole arrays in memory, as children are trained from them (no per-image objects)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nas_cluster.core.component import Component
from nas_cluster.core.task import ImageTask

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


class Dataset(Component, ABC):
    """A source of images. `load` reads or downloads it; everything after that works on the arrays."""

    package: ClassVar[str] = "nas_cluster.datasets"
    word: ClassVar[str] = "dataset"

    @abstractmethod
    def load(self) -> ImageArrays:
        """Read the whole dataset. Raises DataError: what was looked for, where, and what to do."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What decides the content of the arrays (kind, resolved paths, sizes and times of files): the cache key."""
