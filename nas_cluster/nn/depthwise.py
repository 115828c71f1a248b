"""Depthwise convolution with a weight gradient that does not stall on CPUs.

Shapes: N images, C channels, H W height and width, k kernel.

oneDNN computes the weight gradient of 5x5 and 7x7 depthwise convolutions ten times slower than their forward pass. The
same gradient is itself a depthwise convolution, of every image by its own output gradient:

    dW[c, a, b] = sum over n, y, x of  input[n, c, y*stride + a*dilation, x*stride + b*dilation] * grad[n, c, y, x]

that is, N*C channels of one image, a kernel as large as `grad`, stride and dilation exchanged, k x k outputs. oneDNN's
forward kernel does that at full speed. It pays from 5x5 on (README of this folder); 3x3 keeps torch's own gradient.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from nas_cluster.nn.padding import pad_same

__all__ = ["DepthwiseConv2d", "depthwise_weight_gradient"]

_LEAST_KERNEL = 25
"""Kernels of at least so many weights take the other way."""
_IMAGES_AT_ONCE = 16
"""Bounds the transposed copies, which then stay in the cache."""


class DepthwiseConv2d(nn.Conv2d):
    """One filter per channel, SAME padding, no bias. On a CPU it computes in float32 under autocast to bfloat16, where
    oneDNN's depthwise kernels are slower; on CUDA it is torch's own."""

    def __init__(self, channels: int, kernel_size: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__(channels, channels, kernel_size, stride, dilation=dilation, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, ceil(H / stride), ceil(W / stride))."""
        kernel, stride, dilation = self.kernel_size, self.stride, self.dilation
        x, padding = pad_same(x, kernel, stride, dilation)  # type: ignore[arg-type]
        if x.device.type == "cpu" and kernel[0] * kernel[1] >= _LEAST_KERNEL and torch.is_grad_enabled():
            return _Depthwise.apply(x, self.weight, stride, padding, dilation)  # type: ignore[no-any-return]
        return F.conv2d(x, self.weight, None, stride, padding, dilation, self.groups)


class _Depthwise(torch.autograd.Function):
    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.float32)
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: Any, padding: Any, dilation: Any) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.shape = stride, padding, dilation
        return F.conv2d(x, weight, None, stride, padding, dilation, len(weight))

    @staticmethod
    @once_differentiable
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        x, weight = ctx.saved_tensors
        stride, padding, dilation = ctx.shape
        of_input = of_weight = None
        if ctx.needs_input_grad[0]:
            mask = [True, False, False]
            of_input, _, _ = torch.ops.aten.convolution_backward(
                grad, x, weight, None, stride, padding, dilation, False, [0, 0], len(weight), mask
            )
        if ctx.needs_input_grad[1]:
            of_weight = depthwise_weight_gradient(x, grad, weight.shape[2:], stride, padding, dilation)
        return of_input, of_weight, None, None, None


def depthwise_weight_gradient(
    x: Tensor,
    grad: Tensor,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> Tensor:
    """Gradient (C, 1, k, k) of a depthwise convolution's weight. x (N, C, H, W), grad of its output."""
    total: Tensor | None = None
    for x_part, grad_part in zip(x.split(_IMAGES_AT_ONCE), grad.split(_IMAGES_AT_ONCE), strict=True):  # type: ignore
        n, C = x_part.shape[:2]
        image, filters = _channels_first(x_part), _channels_first(grad_part)
        found = F.conv2d(
            image.view(1, C * n, *x.shape[2:]),
            filters.view(C * n, 1, *grad.shape[2:]),
            None,
            stride=dilation,
            padding=padding,
            dilation=stride,
            groups=C * n,
        )
        part = found.view(C, n, *found.shape[2:])[:, :, : kernel[0], : kernel[1]].sum(1)
        total = part if total is None else total.add_(part)
    assert total is not None
    return total[:, None]


def _channels_first(x_NCHW: Tensor) -> Tensor:
    """(C, N, H, W), contiguous; from channels_last memory as one transposition of a matrix, which torch does fast."""
    if x_NCHW.is_contiguous(memory_format=torch.channels_last):
        N, C, H, W = x_NCHW.shape
        return x_NCHW.permute(0, 2, 3, 1).reshape(-1, C).t().contiguous().view(C, N, H, W)
    return x_NCHW.transpose(0, 1).contiguous()
