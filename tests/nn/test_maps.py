"""Maps that several operations read, and their concatenation."""

import pytest
import torch

from nas_cluster.nn.auxiliary import AuxiliaryHead
from nas_cluster.nn.concatenate import concatenate
from nas_cluster.nn.feature_map import FeatureMap


def test_a_map_is_rectified_once():
    x = torch.randn(2, 3, 4, 4)
    kept = FeatureMap(x)
    assert kept.rectified is kept.rectified
    assert torch.equal(kept.rectified, x.clamp(min=0))
    assert torch.equal(kept.raw, x)


def test_a_spare_map_is_overwritten_and_says_so_when_it_is_read():
    x = torch.randn(2, 3, 4, 4)
    spare = FeatureMap(x, spare=True)
    assert spare.rectified.data_ptr() == x.data_ptr()
    with pytest.raises(AssertionError, match="overwritten"):
        _ = spare.raw


def test_concatenation_and_its_gradients():
    maps = [torch.randn(2, c, 3, 4).contiguous(memory_format=torch.channels_last).requires_grad_() for c in (2, 3, 5)]
    joined = concatenate(maps)
    assert torch.equal(joined, torch.cat(maps, 1))
    grad = torch.randn_like(joined)
    for got, expected in zip(torch.autograd.grad(joined, maps, grad), grad.split((2, 3, 5), 1), strict=True):
        assert torch.equal(got, expected)
        assert got.is_contiguous(memory_format=torch.channels_last)
    assert concatenate(maps[:1]) is maps[0]


@pytest.mark.parametrize("size", [(8, 8), (16, 14), (3, 5), (1, 1)])
def test_the_auxiliary_head_fits_any_map(size):
    head = AuxiliaryHead(12, *size, 7)
    assert head(torch.randn(2, 12, *size)).shape == (2, 7)


def test_the_auxiliary_head_has_the_published_size():
    """F-N1: 1,631,498 for CIFAR, where it reads 16 x 16 x 384; F-N3: 2,411,240 at 14 x 14 x 528."""
    assert sum(p.numel() for p in AuxiliaryHead(384, 16, 16, 10).parameters()) == 1_631_498
    assert sum(p.numel() for p in AuxiliaryHead(528, 14, 14, 1000).parameters()) == 2_411_240
