"""What every dataset promises."""

from __future__ import annotations

import json

import numpy as np

from nas_cluster.datasets import Dataset, resident

__all__ = ["check_dataset"]


def check_dataset(dataset: Dataset) -> None:
    """Arrays as its `arrays_type` says, the same from every `load`, a stable identity, a cache that gives them back.

    Call it on a small example of your dataset, with its files written by the test. It loads the dataset three times.
    """
    data = dataset.load().check(f"dataset {dataset.kind}")
    assert type(data) is dataset.arrays_type, "load must give the arrays_type"
    assert type(data.task) is dataset.task_type, "the arrays must be for the task_type"
    arrays, rest = data.parts()
    again = type(dataset).model_validate(dataset.model_dump(mode="json"))
    assert again == dataset, "a dataset must survive model_dump and model_validate"
    identity = json.dumps(dataset.identity(), sort_keys=True)
    assert identity == json.dumps(again.identity(), sort_keys=True), "equal options must give equal identities"
    for source, loaded in (("a second load", again.load()), ("the cache", resident(dataset)), ("it", resident(again))):
        assert loaded.task == data.task
        again_arrays, again_rest = loaded.parts()
        assert json.dumps(again_rest) == json.dumps(rest), f"{source} must give the same {', '.join(rest)}"
        assert again_arrays.keys() == arrays.keys()
        for name, array in arrays.items():
            assert np.array_equal(again_arrays[name], array), f"{source} must give the same {name}"
    for name, array in resident(dataset).parts()[0].items():
        assert not array.flags.writeable, f"workers share {name}"
