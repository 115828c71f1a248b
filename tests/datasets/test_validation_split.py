"""The validation split: stratified, disjoint, by seed, taken from the training images."""

import numpy as np
import pytest

from nas_cluster.core.errors import DataError
from nas_cluster.datasets import train_validation_split
from nas_cluster.datasets.digits import Digits


@pytest.fixture(scope="module")
def y():
    return Digits().load().y_train


@pytest.mark.parametrize("validation", [1, 300, 0.1, 0.5, 1441])
def test_every_class_gives_its_share(y, validation):
    training, held_out = train_validation_split(y, validation, 0)
    assert training.dtype == held_out.dtype == np.int64
    count = round(validation * len(y)) if isinstance(validation, float) else validation
    assert len(held_out) == count
    assert np.array_equal(np.sort(np.concatenate([training, held_out])), np.arange(len(y)))
    for label in range(10):
        assert abs((y[held_out] == label).sum() - count / len(y) * (y == label).sum()) <= 1


def test_the_seed_decides(y):
    first = train_validation_split(y, 300, 0)[1]
    assert np.array_equal(first, train_validation_split(y, 300, 0)[1])
    assert not np.array_equal(first, train_validation_split(y, 300, 1)[1])


def test_images_are_equally_likely_to_be_held_out():
    """1,000 seeds, 3 of each class's 12 images: each is chosen 250 times, give or take 5 standard deviations."""
    y = np.arange(48) % 4
    times = np.zeros(48)
    for seed in range(1000):
        times[train_validation_split(y, 0.25, seed)[1]] += 1
    assert times.sum() == 12_000
    assert np.abs(times - 250).max() < 5 * np.sqrt(1000 * 0.25 * 0.75)


@pytest.mark.parametrize("validation", [0, -1, 1442, 5000, 0.0, 0.0001, 1.0])
def test_an_impossible_split_is_refused(y, validation):
    with pytest.raises(DataError, match=f"validation: {validation} of 1442 .* use 1 to 1441"):
        train_validation_split(y, validation, 0)
