"""TensorFlow's SAME padding: an output has ceil(size / stride) pixels, and the odd zero goes after the image."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

__all__ = ["pad_same", "same_padding"]


def same_padding(size: int, kernel: int, stride: int = 1, dilation: int = 1) -> tuple[int, int]:
    """The padding before and after one dimension of `size` pixels.

    >>> same_padding(8, kernel=3), same_padding(8, kernel=3, stride=2)
    ((1, 1), (0, 1))
    """
    reach = (kernel - 1) * dilation + 1
    total = max((-(-size // stride) - 1) * stride + reach - size, 0)
    return total // 2, total - total // 2


def pad_same(
    x: Tensor, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int] = (1, 1)
) -> tuple[Tensor, tuple[int, int]]:
    """What a convolution must be given to be SAME: the input and its symmetric padding.

    The image is copied into zeros only where the padding is not symmetric (a stride of 2 on an even size).
    """
    (top, bottom), (left, right) = (
        same_padding(n, k, s, d) for n, k, s, d in zip(x.shape[2:], kernel, stride, dilation, strict=True)
    )
    if top == bottom and left == right:
        return x, (top, left)
    return F.pad(x, (left, right, top, bottom)), (0, 0)
