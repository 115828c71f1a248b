"""Pools whose SAME padding never counts: an average divides by the pixels that exist, a maximum ignores the zeros."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from nas_cluster.nn.padding import same_padding

__all__ = ["SamePool", "global_average"]

_LEAST_SEPARABLE = 7
"""Maxima of so large windows are taken along rows, then along columns: the same pixel wins, with half of the work."""


class SamePool(nn.Module):
    """The pool takes the average or the maximum of k x k pixels; k is odd.

    >>> SamePool("avg", kernel=3)(Tensor([[[[1.0, 3.0], [5.0, 7.0]]]])).flatten().tolist()
    [4.0, 4.0, 4.0, 4.0]

    TensorFlow's windows at stride 2 begin at `before` pixels outside, which is torch's `padding`; the last one may hang
    over the edge, which is torch's `ceil_mode`. So nothing is copied into zeros.
    """

    def __init__(self, kind: Literal["avg", "max"], kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.kind, self.kernel, self.stride = kind, kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, ceil(H / stride), ceil(W / stride))."""
        top, left = (same_padding(n, self.kernel, self.stride)[0] for n in x.shape[2:])
        if self.kind == "avg":
            return F.avg_pool2d(x, self.kernel, self.stride, (top, left), ceil_mode=True, count_include_pad=False)
        if self.kernel < _LEAST_SEPARABLE:
            return F.max_pool2d(x, self.kernel, self.stride, (top, left), ceil_mode=True)
        rows = F.max_pool2d(x, (1, self.kernel), (1, self.stride), (0, left), ceil_mode=True)
        return F.max_pool2d(rows, (self.kernel, 1), (self.stride, 1), (top, 0), ceil_mode=True)

    def extra_repr(self) -> str:
        """What a person who prints a network reads."""
        return f"{self.kind}, {self.kernel}, stride={self.stride}"


def global_average(x: Tensor) -> Tensor:
    """Map (N, C, H, W) to (N, C). Its gradient lies in memory as channels_last, as a network's maps do; that of
    `x.mean((2, 3))` does not, and the operation before it then takes a general path, fifteen times slower on a CPU."""
    return x.permute(0, 2, 3, 1).flatten(1, 2).mean(1)
