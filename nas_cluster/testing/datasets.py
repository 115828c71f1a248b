"""What every dataset promises."""

from __future__ import annotations

import json

import numpy as np

from nas_cluster.datasets import Dataset, resident

__all__ = ["check_dataset"]


def check_dataset(dataset: Dataset) -> None:
    """Array types and shapes, labels in range, a stable identity, and a cache that gives the same arrays."""
    data = dataset.load()
    for images, labels in ((data.x_train, data.y_train), (data.x_test, data.y_test)):
        assert images.dtype == np.uint8
        assert images.ndim == 4
        assert labels.dtype == np.int64
        assert labels.shape == (len(images),)
        assert len(images) > 0
        assert labels.min() >= 0
        assert labels.max() < data.classes
    assert data.x_train.shape[1:] == data.x_test.shape[1:]
    assert set(np.unique(data.y_train)) == set(range(data.classes)), "every class has training images"
    identity = json.dumps(dataset.identity(), sort_keys=True)
    assert identity == json.dumps(type(dataset).model_validate(dataset.model_dump()).identity(), sort_keys=True)
    for _ in range(2):
        cached = resident(dataset)
        assert cached.classes == data.classes
        assert cached.task == data.task
        for name in ("x_train", "y_train", "x_test", "y_test"):
            array = getattr(cached, name)
            assert np.array_equal(array, getattr(data, name))
            assert not array.flags.writeable, "workers share these arrays"
