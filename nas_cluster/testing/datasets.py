"""What every dataset promises."""

from __future__ import annotations

import json

import numpy as np

from nas_cluster.datasets import Dataset, resident

__all__ = ["check_dataset"]


def check_dataset(dataset: Dataset) -> None:
    """Arrays as ImageArrays says, the same from every `load`, a stable identity, a cache that gives them back.

    Call it on a small example of your dataset, with its files written by the test. It loads the dataset three times.
    """
    data = dataset.load().check(f"dataset {dataset.kind}")
    again = type(dataset).model_validate(dataset.model_dump(mode="json"))
    assert again == dataset, "a dataset must survive model_dump and model_validate"
    identity = json.dumps(dataset.identity(), sort_keys=True)
    assert identity == json.dumps(again.identity(), sort_keys=True), "equal options must give equal identities"
    for source, loaded in (("a second load", again.load()), ("the cache", resident(dataset)), ("it", resident(again))):
        assert loaded.task == data.task
        for name in ("x_train", "y_train", "x_test", "y_test"):
            assert np.array_equal(getattr(loaded, name), getattr(data, name)), f"{source} must give the same {name}"
    for name in ("x_train", "y_train", "x_test", "y_test"):
        assert not getattr(resident(dataset), name).flags.writeable, "workers share these arrays"
