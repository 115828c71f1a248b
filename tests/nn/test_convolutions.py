"""Convolutions of cells: SAME padding, sizes (oracle F-N6), factorised reduction."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nas_cluster.nn.convolutions import (
    ConvNorm,
    FactorisedConvNorm,
    FactorisedReduction,
    SameConv2d,
    SeparableTwice,
    initialise_convolutions,
)
from nas_cluster.nn.padding import same_padding


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_same_padding_is_tensorflows():
    """At stride 2 an even size is padded after, an odd one on both sides."""
    assert same_padding(32, 3, 2) == (0, 1)
    assert same_padding(33, 3, 2) == (1, 1)
    assert same_padding(32, 5, 2) == (1, 2)
    assert same_padding(32, 7, 2) == (2, 3)
    assert same_padding(32, 3) == (1, 1)
    assert same_padding(32, 1, 2) == (0, 0)
    assert same_padding(32, 3, dilation=2) == (2, 2)
    assert same_padding(32, 3, 2, dilation=2) == (1, 2)
    assert same_padding(1, 7, 2) == (3, 3)


def test_a_strided_convolution_reads_the_pixels_that_tensorflow_reads():
    """A 3x3 kernel that copies its first pixel: at stride 2 on an even size its windows begin at 0, 2, 4, ..."""
    conv = SameConv2d(1, 1, 3, 2)
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[0, 0, 0, 0] = 1
    x = torch.arange(64.0).view(1, 1, 8, 8)
    assert torch.equal(conv(x), x[:, :, ::2, ::2])


@pytest.mark.parametrize("kernel,expected", [(3, 2752), (5, 3776), (7, 5312)])
def test_parameters_of_a_separable_convolution_applied_twice(kernel, expected):
    """F-N6: 2 (k^2 F + F^2 + 2F)."""
    assert count(SeparableTwice(32, 32, kernel)) == expected == 2 * (kernel**2 * 32 + 32**2 + 64)


def test_parameters_of_the_other_operations():
    """F-N6."""
    assert count(SeparableTwice(96, 32, 3)) == 5376
    assert count(ConvNorm(96, 32)) == 96 * 32 + 64
    assert count(FactorisedReduction(96, 32)) == 96 * 32 + 64
    assert count(FactorisedConvNorm(32, 32, 7)) == 14 * 32**2 + 64
    assert count(ConvNorm(32, 32, 3, dilation=2)) == 9 * 32**2 + 64


@pytest.mark.parametrize(
    "module",
    [SeparableTwice(6, 4, 5, 2), FactorisedConvNorm(6, 4, 7, 2), ConvNorm(6, 4, 3, 2, 2), FactorisedReduction(6, 4)],
)
@pytest.mark.parametrize("size", [(8, 8), (7, 9), (1, 2), (1, 1)])
def test_a_stride_of_two_halves_and_rounds_up(module, size):
    assert module(torch.randn(3, 6, *size)).shape == (3, 4, math.ceil(size[0] / 2), math.ceil(size[1] / 2))


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (8, 5), (1, 1)])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_the_factorised_reduction_and_its_gradients_are_the_textbooks(size, layout):
    """Pad bottom and right, drop the first row and column, subsample; F = 5 is split in 2 and 3."""
    module = FactorisedReduction(6, 5).double()
    x = torch.randn(4, 6, *size, dtype=torch.float64, requires_grad=True)
    shifted = F.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
    halves = [F.conv2d(x, module.even.weight, stride=2), F.conv2d(shifted, module.odd.weight, stride=2)]
    expected = F.batch_norm(torch.cat(halves, 1), None, None, module.norm.weight, module.norm.bias, training=True)
    got = module(x.contiguous(memory_format=layout))
    inputs = (x, *module.parameters())
    grad = torch.randn_like(expected)
    assert (got - expected).abs().max() < 1e-10
    for a, b in zip(torch.autograd.grad(got, inputs, grad), torch.autograd.grad(expected, inputs, grad), strict=True):
        assert (a - b).abs().max() < 1e-10


def test_no_relu_or_norm_between_the_halves_of_a_separable_convolution():
    """They are linear together: with the norms away and everything positive, so is the whole."""
    module = SeparableTwice(2, 2, 3)
    module.pointwise_1.norm = module.pointwise_2.norm = nn.Identity()
    with torch.no_grad():
        for p in module.parameters():
            p.abs_()  # all maps stay positive, so the ReLU does nothing
    x = torch.rand(1, 2, 6, 6)
    assert torch.allclose(module(3 * x), 3 * module(x), rtol=1e-5)


def test_initialisation_is_hes_by_the_fan_out():
    module = nn.Sequential(SeparableTwice(64, 256, 5), SameConv2d(64, 256, 3))
    torch.manual_seed(0)
    initialise_convolutions(module)
    assert module[1].weight.std().item() == pytest.approx(math.sqrt(2 / (9 * 256)), rel=0.02)
    assert module[0].depthwise_2.weight.std().item() == pytest.approx(math.sqrt(2 / 25), rel=0.05)
    assert module[0].pointwise_1.conv.weight.std().item() == pytest.approx(math.sqrt(2 / 256), rel=0.02)
