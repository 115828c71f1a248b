"""Depthwise convolution with a weight gradient that does not stall on CPUs.

Shapes: N images, C channels, H W height and width, k x k kernel.

oneDNN's gradient of a depthwise weight is fast when the kernel has three columns, and several times slower than the
forward pass when it has more. Wider kernels are therefore computed in strips of three columns. A strip that begins at
column `a` reads the input `a` pixels further to the right: with zero columns on both sides, that is the same memory
from a later address on, so the input is copied once for all strips. What a strip reads beyond the end of a row, where
the next row begins, meets zeros: the output's gradient is padded with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from nas_cluster.nn.padding import pad_same

__all__ = ["DepthwiseConv2d", "depthwise_weight_gradient"]

_Settings = tuple[Sequence[int], Sequence[int], Sequence[int]]
"""Stride, padding, dilation."""

_STRIP = 3


class DepthwiseConv2d(nn.Conv2d):
    """The convolution has one filter per channel, SAME padding and no bias. On CUDA it is torch's own; on a CPU it
    stays in float32 under autocast to bfloat16, in which oneDNN's depthwise kernels are slower."""

    def __init__(self, channels: int, kernel_size: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__(channels, channels, kernel_size, stride, dilation=dilation, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, ceil(H / stride), ceil(W / stride))."""
        x, padding = pad_same(x, self.kernel_size, self.stride, self.dilation)
        if x.device.type != "cpu":
            return F.conv2d(x, self.weight, None, self.stride, padding, self.dilation, self.groups)
        settings = (self.stride, padding, self.dilation)
        if torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                return _on_cpu(x.to(self.weight.dtype), self.weight, settings)
        return _on_cpu(x, self.weight, settings)


def _on_cpu(x: Tensor, weight: Tensor, settings: _Settings) -> Tensor:
    y: Tensor = _Depthwise.apply(x, weight, settings)
    return y


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, settings: _Settings) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.settings = settings
        stride, padding, dilation = settings
        return F.conv2d(x, weight, None, stride, padding, dilation, len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        of_x, of_weight = ctx.needs_input_grad[:2]
        in_strips = of_weight and strips_pay(weight.shape[2:], ctx.settings[0][1], x.shape[2:])
        mask = [of_x, of_weight and not in_strips, False]
        x_grad, weight_grad, _ = torch.ops.aten.convolution_backward(
            grad, x, weight, None, *ctx.settings, False, [0, 0], len(weight), mask
        )
        if in_strips:
            weight_grad = depthwise_weight_gradient(x, grad, weight.shape[2:], *ctx.settings)
        return x_grad, weight_grad, None


def strips_pay(kernel: Sequence[int], stride: int, size: Sequence[int]) -> bool:
    """Whether strips are the faster way to the gradient of a kernel, for an input of this height and width."""
    return 5 <= max(kernel) <= min(size) and (stride == 1 or max(kernel) == 5)


def depthwise_weight_gradient(
    x: Tensor,
    grad: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    """Compute a depthwise weight's gradient (C, 1, rows, columns) in strips. x (N, C, H, W); grad: of the output."""
    N, C, H, W = x.shape
    rows, columns = kernel
    width = W + 2 * padding[1]
    starts = [*range(0, columns - _STRIP, _STRIP), columns - _STRIP]
    memory = x.new_zeros(N * H * width * C + starts[-1] * dilation[1] * C)
    padded = memory[: N * H * width * C].view(N, H, width, C)
    padded[:, :, padding[1] : padding[1] + W] = x.permute(0, 2, 3, 1)
    reach = (_STRIP - 1) * dilation[1] + 1
    grad = F.pad(grad, (0, (width - reach) // stride[1] + 1 - grad.shape[3]))
    of_weight, strip = x.new_empty(C, 1, rows, columns), x.new_empty(C, 1, rows, _STRIP)
    settings = (stride, (padding[0], 0), dilation, False, [0, 0], C)
    for a in starts:
        shifted = memory.as_strided((N, C, H, width), (H * width * C, 1, width * C, C), a * dilation[1] * C)
        _, of_strip, _ = torch.ops.aten.convolution_backward(
            grad, shifted, strip, None, *settings, [False, True, False]
        )
        of_weight[..., a : a + _STRIP] = of_strip
    return of_weight
