"""The interface of a dataset: whole arrays in memory, as children are trained from them (no per-image objects)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from nas_cluster.core.component import Component
from nas_cluster.core.errors import DataError
from nas_cluster.core.task import ImageTask, LanguageTask, Task

__all__ = ["Arrays", "Dataset", "ImageArrays", "TextArrays"]


class Arrays(ABC):
    """A loaded dataset: a frozen dataclass whose fields are numpy arrays and little else that JSON can hold.

    The arrays are read-only and maybe memory-mapped.
    """

    unit: ClassVar[str]
    """What its examples are, for people: a plural."""

    @property
    @abstractmethod
    def task(self) -> Task:
        """What a child must fit."""

    @property
    @abstractmethod
    def training_examples(self) -> int:
        """Size of the training part, in `unit`."""

    @abstractmethod
    def check(self, where: str) -> Self:
        """Itself, when it is what its class says. Raises DataError, one line that begins with `where`."""

    def parts(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """(arrays, everything else) by field: `type(self)(**arrays, **rest)` is this object again."""
        values = {field.name: vars(self)[field.name] for field in fields(self) if field.init}  # type: ignore[arg-type]
        arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
        return arrays, {name: value for name, value in values.items() if name not in arrays}


@dataclass(frozen=True)
class ImageArrays(Arrays):
    """Images uint8 (N, height, width, channels), labels int64 (N) in 0..classes-1."""

    unit: ClassVar[str] = "images"

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

    @property
    def training_examples(self) -> int:
        """Training images, those that are held out for validation included."""
        return len(self.y_train)

    def check(self, where: str) -> Self:
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


@dataclass(frozen=True)
class TextArrays(Arrays):
    """Three texts, each one stream of token ids int32 (N) in 0..V-1. `vocabulary[i]` is the token with id i."""

    train: NDArray[np.int32]
    validation: NDArray[np.int32]
    test: NDArray[np.int32]
    vocabulary: Sequence[str]

    unit: ClassVar[str] = "tokens"

    @property
    def task(self) -> LanguageTask:
        """What a child must fit."""
        return LanguageTask(vocabulary=len(self.vocabulary))

    @property
    def training_examples(self) -> int:
        """Tokens of the training text."""
        return len(self.train)

    def check(self, where: str) -> Self:
        """Itself, when it is what this class says and every part has a token to predict from the one before it.

        Raises DataError, one line that begins with `where`.
        """
        V = len(self.vocabulary)
        if V < 2 or len(set(self.vocabulary)) != V:
            raise DataError(f"{where}: the vocabulary must be two different tokens or more, is {V} of them")
        for part, ids in (("train", self.train), ("validation", self.validation), ("test", self.test)):
            if ids.dtype != np.int32 or ids.ndim != 1 or len(ids) < 2:
                raise DataError(f"{where}: {part} must be int32 (N), two tokens or more, is {ids.dtype} {ids.shape}")
            for token in (ids.min(), ids.max()):
                if not 0 <= token < V:
                    raise DataError(f"{where}: {part} has token {token}; the vocabulary has 0 to {V - 1}")
        return self


class Dataset(Component, ABC):
    """A source of examples. `load` reads or downloads it; everything after that works on the arrays."""

    package: ClassVar[str] = "nas_cluster.datasets"
    word: ClassVar[str] = "dataset"
    task_type: ClassVar[type[Task]] = ImageTask
    """The kind of its task, known before anything is loaded: a space or an estimator for another is refused."""
    arrays_type: ClassVar[type[Arrays]] = ImageArrays
    """What `load` gives; its task is of `task_type`."""

    @abstractmethod
    def load(self) -> Arrays:
        """Read the whole dataset. Raises DataError: what was looked for, where, and what to do."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What decides the content of the arrays (kind, resolved paths, sizes and times of files): the cache key."""
