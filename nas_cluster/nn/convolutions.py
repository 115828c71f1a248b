"""Convolutions as cells use them: with SAME padding, without bias, with a batch norm behind.

The caller applies the ReLU before them, so that a map that several operations read is rectified once (feature_map.py).
Sizes: C input channels, F filters, k kernel.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from nas_cluster.nn.concatenate import concatenate, layout_of
from nas_cluster.nn.depthwise import DepthwiseConv2d
from nas_cluster.nn.padding import pad_same

__all__ = [
    "ConvNorm",
    "FactorisedConvNorm",
    "FactorisedReduction",
    "SameConv2d",
    "SeparableTwice",
    "initialise_convolutions",
]


class SameConv2d(nn.Conv2d):
    """The convolution is dense, has SAME padding and no bias."""

    def __init__(
        self,
        channels: int,
        filters: int,
        kernel: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        dilation: int = 1,
    ) -> None:
        super().__init__(channels, filters, kernel, stride, dilation=dilation, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, F, ceil(H / stride), ceil(W / stride))."""
        x, padding = pad_same(x, self.kernel_size, self.stride, self.dilation)
        return F.conv2d(x, self.weight, None, self.stride, padding, self.dilation)


class ConvNorm(nn.Module):
    """The module computes a convolution and a batch norm: k*k*C*F + 2F parameters.

    >>> sum(p.numel() for p in ConvNorm(channels=4, filters=6, kernel=3).parameters())
    228
    """

    def __init__(self, channels: int, filters: int, kernel: int = 1, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv = SameConv2d(channels, filters, kernel, stride, dilation)
        self.norm = nn.BatchNorm2d(filters)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, F, ceil(H / stride), ceil(W / stride))."""
        y: Tensor = self.norm(self.conv(x))
        return y


class FactorisedConvNorm(nn.Module):
    """The module computes a 1 x k convolution, a k x 1 one and a batch norm: k*C*F + k*F*F + 2F parameters. Each kernel
    strides along its own length."""

    def __init__(self, channels: int, filters: int, length: int, stride: int = 1) -> None:
        super().__init__()
        self.across = SameConv2d(channels, filters, (1, length), (1, stride))
        self.down = SameConv2d(filters, filters, (length, 1), (stride, 1))
        self.norm = nn.BatchNorm2d(filters)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, F, ceil(H / stride), ceil(W / stride))."""
        y: Tensor = self.norm(self.down(self.across(x)))
        return y


class SeparableTwice(nn.Module):
    """The module applies a depthwise-separable convolution twice: depthwise (with the stride), pointwise, norm, ReLU,
    depthwise, pointwise, norm (Zoph et al. 2018, A.4): k*k*C + C*F + k*k*F + F*F + 4F parameters."""

    def __init__(self, channels: int, filters: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.depthwise_1 = DepthwiseConv2d(channels, kernel, stride)
        self.pointwise_1 = ConvNorm(channels, filters)
        self.depthwise_2 = DepthwiseConv2d(filters, kernel)
        self.pointwise_2 = ConvNorm(filters, filters)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, F, ceil(H / stride), ceil(W / stride))."""
        x = F.relu(self.pointwise_1(self.depthwise_1(x)), inplace=True)
        y: Tensor = self.pointwise_2(self.depthwise_2(x))
        return y


class FactorisedReduction(nn.Module):
    """The module halves a map without losing half of its pixels: one half of the filters reads the even pixels, the
    other half reads those shifted by one, and one batch norm follows (Zoph et al. 2018, A.4): C*F + 2F parameters.
    F is at least 2."""

    def __init__(self, channels: int, filters: int) -> None:
        super().__init__()
        self.even = SameConv2d(channels, filters // 2, 1)
        self.odd = SameConv2d(channels, filters - filters // 2, 1)
        self.norm = nn.BatchNorm2d(filters)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, F, ceil(H / 2), ceil(W / 2))."""
        even, odd = _EveryOther.apply(x)
        y: Tensor = self.norm(concatenate([self.even(even), self.odd(odd)]))
        return y


class _EveryOther(torch.autograd.Function):
    """One half gets the pixels (0, 0), (0, 2), ..., the other (1, 1), (1, 3), ..., with zeros where those lie outside;
    the gradients of both are written into one tensor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        ctx.shape = x.shape
        even, odd = x[:, :, ::2, ::2], x[:, :, 1::2, 1::2]
        bottom, right = even.shape[2] - odd.shape[2], even.shape[3] - odd.shape[3]
        return even.clone(memory_format=layout_of(x)), F.pad(odd, (0, right, 0, bottom))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_even: Tensor, of_odd: Tensor) -> Tensor:
        of_x = of_even.new_empty(ctx.shape).contiguous(memory_format=layout_of(of_even)).zero_()
        of_x[:, :, ::2, ::2] = of_even
        odd = of_x[:, :, 1::2, 1::2]
        odd.copy_(of_odd[:, :, : odd.shape[2], : odd.shape[3]])
        return of_x


def initialise_convolutions(module: nn.Module) -> None:
    """Draw every convolution from He's normal distribution by the fan out, depthwise kernels by their own k*k (so does
    TF-slim's `FAN_OUT`). Convolutions on the meta device are left out: torch takes long to do nothing there."""
    for conv in module.modules():
        if isinstance(conv, nn.Conv2d) and not conv.weight.is_meta:
            fan_out = conv.weight.numel() / conv.in_channels
            nn.init.normal_(conv.weight, std=math.sqrt(2 / fan_out))
