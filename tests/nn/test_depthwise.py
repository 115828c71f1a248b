"""The depthwise convolution's own gradients are torch's."""

import itertools

import pytest
import torch
from torch.nn import functional as F

from nas_cluster.nn.depthwise import DepthwiseConv2d, depthwise_weight_gradient, strips_pay

LAYOUTS = (torch.channels_last, torch.contiguous_format)


@pytest.mark.parametrize("kernel", [3, 4, 5, 6, 7, 9])
def test_the_weight_gradient_in_strips_is_torchs(kernel):
    for stride, dilation, padding, size in itertools.product((1, 2, 3), (1, 2), (0, 1, 3), ((9, 11), (20, 17))):
        if min(size) + 2 * padding < (kernel - 1) * dilation + 1:
            continue
        x = torch.randn(2, 3, *size, dtype=torch.float64)
        weight = torch.randn(3, 1, kernel, kernel, dtype=torch.float64, requires_grad=True)
        y = F.conv2d(x, weight, None, stride, padding, dilation, 3)
        grad = torch.randn_like(y)
        (expected,) = torch.autograd.grad(y, weight, grad)
        for layout in LAYOUTS:
            settings = ((stride,) * 2, (padding,) * 2, (dilation,) * 2)
            got = depthwise_weight_gradient(
                x.contiguous(memory_format=layout), grad.contiguous(memory_format=layout), (kernel,) * 2, *settings
            )
            assert (got - expected).abs().max() < 1e-10


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kernel,stride", [(3, 1), (3, 2), (5, 1), (5, 2), (7, 1), (7, 2)])
def test_forward_and_both_gradients_are_torchs_with_same_padding(kernel, stride, layout):
    for size in ((16, 16), (15, 17), (8, 9), (3, 2)):
        x = torch.randn(3, 4, *size, dtype=torch.float64, requires_grad=True)
        conv = DepthwiseConv2d(4, kernel, stride).double()
        total = [max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in size]
        before = [t // 2 for t in total]
        pad = (before[1], total[1] - before[1], before[0], total[0] - before[0])
        expected = F.conv2d(F.pad(x, pad), conv.weight, None, stride, groups=4)
        got = conv(x.contiguous(memory_format=layout))
        assert got.shape[2:] == tuple(-(-n // stride) for n in size)
        grad = torch.randn_like(expected)
        pairs = zip(
            (got, *torch.autograd.grad(got, (x, conv.weight), grad)),
            (expected, *torch.autograd.grad(expected, (x, conv.weight), grad)),
            strict=True,
        )
        for a, b in pairs:
            assert (a - b).abs().max() < 1e-10


def test_wide_kernels_take_strips():
    """What the test above covers of both ways."""
    assert strips_pay((5, 5), 1, (16, 16))
    assert strips_pay((5, 5), 2, (8, 9))
    assert strips_pay((7, 7), 1, (7, 16))
    assert not strips_pay((7, 7), 2, (16, 16))
    assert not strips_pay((3, 3), 1, (16, 16))
    assert not strips_pay((5, 5), 1, (4, 16))


def test_on_a_cpu_it_stays_in_float32_under_autocast():
    conv = DepthwiseConv2d(4, 5)
    x = torch.randn(2, 4, 8, 8, dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = conv(x)
    assert y.dtype == torch.float32
    y.sum().backward()
    assert conv.weight.grad.dtype == torch.float32
    assert x.grad.dtype == torch.bfloat16
