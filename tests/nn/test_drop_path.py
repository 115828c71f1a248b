"""ScheduledDropPath."""

import pytest
import torch

from nas_cluster.nn.drop_path import drop_path, keep_probabilities


def test_probabilities_follow_the_formula():
    """keep = 1 - step/total (clipped to 1) * (cell + 1) / cells * (1 - final)."""
    for step in (0, 1, 250, 499, 500, 900):
        keep = keep_probabilities(torch.tensor(step / 500), 20, 0.6)
        expected = [1 - min(step / 500, 1) * (cell + 1) / 20 * 0.4 for cell in range(20)]
        assert keep.tolist() == pytest.approx(expected, abs=1e-6)
    assert keep_probabilities(torch.tensor(1.0), 20, 0.7)[-1].item() == pytest.approx(0.7)


def test_whole_examples_are_dropped_and_the_rest_is_scaled():
    torch.manual_seed(0)
    y = drop_path(torch.ones(20_000, 2, 3, 1), torch.tensor(0.6))
    kept = y[:, 0, 0, 0] > 0
    assert kept.float().mean().item() == pytest.approx(0.6, abs=0.015)  # 4 standard errors
    assert torch.equal(y, kept[:, None, None, None] * torch.full_like(y, 1 / 0.6))


def test_nothing_is_dropped_at_the_beginning():
    x = torch.randn(8, 2, 3, 3)
    assert torch.equal(drop_path(x.clone(), torch.tensor(1.0)), x)
