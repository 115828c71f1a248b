"""What a child is asked to learn: enough to build it and to run it once, nothing about how the data is stored.

A dataset gives a task, a space and an estimator say which ones they understand. Your own is a frozen dataclass beside
your dataset: it gives `word`, `__str__` and `run_example`, and nothing in this package has to know it.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from nas_cluster.core.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ImageTask", "LanguageTask", "Task", "words_of"]


class Task(ABC):
    """What a child must fit: a frozen dataclass of plain values. Whoever understands a task understands its subclasses.

    torch is imported inside methods only.
    """

    word: ClassVar[str]
    """What messages call it, as in "is for images"."""

    @abstractmethod
    def __str__(self) -> str:
        """The task in a few words, for people."""

    @abstractmethod
    def run_example(self, model: Any, batch: int = 1) -> tuple[Tensor, ...]:
        """All that a child gives for `batch` examples, which are random numbers of torch's default device and dtype.

        Sizes are counted by it on the meta device: one example is what "operations of a forward pass" are of.
        """

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """A few small tasks of this kind, for which `check_space` builds children when it is given no others."""
        return ()

    @classmethod
    def usual(cls) -> Self | None:
        """The task for which `show` counts the size of an architecture when it is told none; None: there is no such."""
        return None

    @classmethod
    def parse(cls, text: str) -> Self:
        """The task that `show --task` names. Raises ConfigError, one line with the form it should have."""
        raise ConfigError(f"--task {text!r}: this space is for {cls.word}, and such a task cannot be written in a word")


def words_of(kinds: tuple[type[Task], ...]) -> str:
    """How messages call one of these tasks.

    >>> words_of((ImageTask, LanguageTask))
    'images or text'
    """
    return " or ".join(kind.word for kind in kinds)


@dataclass(frozen=True)
class ImageTask(Task):
    """Image classification. A child maps float images (N, channels, height, width) to logits (N, classes)."""

    word: ClassVar[str] = "images"

    height: int
    width: int
    channels: int
    classes: int

    def __str__(self) -> str:
        return f"{self.height}x{self.width}x{self.channels} images, {self.classes} classes"

    def run_example(self, model: Any, batch: int = 1) -> tuple[Tensor, ...]:
        """The logits of `batch` images."""
        import torch

        return (model(torch.randn(batch, self.channels, self.height, self.width)),)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """The digits' size, one without symmetry, CIFAR's size."""
        return cls(8, 8, 1, 10), cls(17, 23, 3, 4), cls(32, 32, 3, 10)

    @classmethod
    def usual(cls) -> Self:
        """CIFAR-10's."""
        return cls(32, 32, 3, 10)

    @classmethod
    def parse(cls, text: str) -> Self:
        """The task written as 32x32x3/10."""
        found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)x([1-9]\d*)/([1-9]\d*)", text)
        if found is None:
            form = "HEIGHTxWIDTHxCHANNELS/CLASSES, 32x32x3/10"
            raise ConfigError(f"--task {text!r}: this space is for images; write {form}")
        return cls(*map(int, found.groups()))


@dataclass(frozen=True)
class LanguageTask(Task):
    """Language modelling: predict the next token of a text, carrying state from one window to the next.

    Shapes: T tokens of a window, B texts side by side, E features, V words. A child has `initial_state(B)`, which gives
    a tuple of tensors; `forward(tokens_TB, state)`, which gives (features_TBE, state); and `decoder`, a linear layer
    from E features to V logits. The trainer applies the decoder itself, fused with the loss.
    """

    word: ClassVar[str] = "text"

    vocabulary: int

    def __str__(self) -> str:
        return f"text over {self.vocabulary:,} tokens"

    def run_example(self, model: Any, batch: int = 1) -> tuple[Tensor, ...]:
        """The logits of `batch` texts of one token each, and the state after it."""
        import torch

        features_TBE, state = model(torch.randint(self.vocabulary, (1, batch)), model.initial_state(batch))
        return model.decoder(features_TBE), *state

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """The smallest vocabulary, and that of characters."""
        return cls(2), cls(50)

    @classmethod
    def usual(cls) -> Self:
        """Penn Treebank's words."""
        return cls(10_000)

    @classmethod
    def parse(cls, text: str) -> Self:
        """The task written as the size of its vocabulary."""
        if text.isdigit() and int(text) > 1:
            return cls(int(text))
        raise ConfigError(f"--task {text!r}: this space is for text; write the size of a vocabulary, 10000")
