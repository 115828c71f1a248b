"""Pools with SAME padding: padding never counts."""

import pytest
import torch

from nas_cluster.nn.padding import same_padding
from nas_cluster.nn.pooling import SamePool, global_average


def by_hand(x, kind, kernel, stride):
    """Every window cut to the image, one at a time."""
    (top, _), (left, _) = (same_padding(n, kernel, stride) for n in x.shape[2:])
    height, width = (-(-n // stride) for n in x.shape[2:])
    rows = []
    for i in range(height):
        columns = []
        for j in range(width):
            a, b = i * stride - top, j * stride - left
            window = x[:, :, max(a, 0) : a + kernel, max(b, 0) : b + kernel]
            columns.append(window.mean((2, 3)) if kind == "avg" else window.amax((2, 3)))
        rows.append(torch.stack(columns, 2))
    return torch.stack(rows, 2)


@pytest.mark.parametrize("kind,kernel", [("avg", 3), ("max", 3), ("max", 5), ("max", 7)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(8, 8), (7, 10), (2, 3), (1, 1)])
def test_pools_are_those_of_windows_cut_to_the_image(kind, kernel, stride, size):
    x = torch.randn(2, 3, *size, dtype=torch.float64) - 5  # a padded zero would win every maximum
    for layout in (torch.channels_last, torch.contiguous_format):
        got = SamePool(kind, kernel, stride)(x.contiguous(memory_format=layout))
        assert (got - by_hand(x, kind, kernel, stride)).abs().max() < 1e-12


@pytest.mark.parametrize("stride", [1, 2])
def test_among_equal_pixels_the_first_gets_the_gradient_as_in_torch(stride):
    x = torch.randint(3, (2, 2, 9, 9)).double().requires_grad_()
    y = torch.nn.functional.max_pool2d(x, 7, stride, 3)
    grad = torch.randn_like(y)
    (expected,) = torch.autograd.grad(y, x, grad)
    (got,) = torch.autograd.grad(SamePool("max", 7, stride)(x), x, grad)
    assert torch.allclose(got, expected)


def test_the_global_average_and_the_layout_of_its_gradient():
    x = torch.randn(2, 3, 4, 5, requires_grad=True)
    y = global_average(x.contiguous(memory_format=torch.channels_last))
    assert torch.allclose(y, x.mean((2, 3)))
    (got,) = torch.autograd.grad(y, x, torch.ones_like(y))
    assert torch.allclose(got, torch.full_like(x, 1 / 20))
    assert got.is_contiguous(memory_format=torch.channels_last)
