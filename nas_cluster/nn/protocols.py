"""What a child may offer to its trainer beside `forward`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeGuard, runtime_checkable

from torch import Tensor, nn

__all__ = ["FollowsProgress", "HasTrainingLogits", "follows_progress", "training_logits"]


class FollowsProgress(Protocol):
    """A child that follows its training, with drop path for instance; `follows_progress` recognises it.

    The trainer fills the buffer in place before every step, so that a CUDA graph, captured once, reads the new value.

    >>> import torch
    >>> child = nn.Identity()
    >>> child.register_buffer("progress", torch.zeros(()), persistent=False)
    >>> follows_progress(child)
    True
    """

    progress: Tensor
    """A buffer without dimensions: the share of the training that is done, 0 to 1."""


@runtime_checkable
class HasTrainingLogits(Protocol):
    """A child that may have an auxiliary classifier. The method is its own or its class's, for `isinstance` to see it.

    >>> class Child(nn.Linear):
    ...     def training_logits(self, images):
    ...         return self(images), None
    >>> isinstance(Child(2, 2), HasTrainingLogits), isinstance(nn.Linear(2, 2), HasTrainingLogits)
    (True, False)
    """

    def training_logits(self, images: Tensor, /) -> tuple[Tensor, Tensor | None]:
        """Logits (N, classes), and the auxiliary classifier's, or None where there is none."""


def follows_progress(child: nn.Module) -> TypeGuard[FollowsProgress]:
    """Whether the child has a buffer `progress`. A function, for from Python 3.12 on `isinstance` sees no buffers: a
    module keeps them where only `__getattr__` finds them."""
    return any(name == "progress" for name, _ in child.named_buffers(recurse=False))


def training_logits(child: Callable[[Tensor], Tensor], images: Tensor) -> tuple[Tensor, Tensor | None]:
    """Logits of any child while it trains, and the auxiliary classifier's where it has one."""
    if isinstance(child, HasTrainingLogits):
        return child.training_logits(images)
    return child(images), None
