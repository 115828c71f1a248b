"""What a child is asked to learn: enough to build it, nothing about how the data is stored."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ImageTask", "Task"]


@dataclass(frozen=True)
class ImageTask:
    """Image classification. A child maps float images (N, channels, height, width) to logits (N, classes)."""

    height: int
    width: int
    channels: int
    classes: int

    def __str__(self) -> str:
        return f"{self.height}x{self.width}x{self.channels} images, {self.classes} classes"


Task = ImageTask
