"""What a child is asked to learn: enough to build it, nothing about how the data is stored."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ImageTask", "LanguageTask", "Task"]


@dataclass(frozen=True)
class ImageTask:
    """Image classification. A child maps float images (N, channels, height, width) to logits (N, classes)."""

    height: int
    width: int
    channels: int
    classes: int

    def __str__(self) -> str:
        return f"{self.height}x{self.width}x{self.channels} images, {self.classes} classes"


@dataclass(frozen=True)
class LanguageTask:
    """Language modelling: predict the next token of a text, carrying state from one window to the next.

    Shapes: T tokens of a window, B texts side by side, E features, V words. A child has `initial_state(B)`, which gives
    a tuple of tensors; `forward(tokens_TB, state)`, which gives (features_TBE, state); and `decoder`, a linear layer
    from E features to V logits. The trainer applies the decoder itself, fused with the loss.
    """

    vocabulary: int

    def __str__(self) -> str:
        return f"text over {self.vocabulary:,} tokens"


Task = ImageTask | LanguageTask
