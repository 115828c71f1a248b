"""The validation split: taken from the training images by seed, never from the test images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nas_cluster.core.errors import DataError
from nas_cluster.core.seeds import stream

__all__ = ["train_validation_split"]


def train_validation_split(
    y_train: NDArray[np.int64], validation: int | float, seed: int, training_images: int | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices (training, validation) into the training images, each ascending, together all of them; with
    `training_images`, at most so many of the former.

    validation: a count (int) or a share (float in 0..1). Stratified: each class gives its share, to within one image,
    so that no class of a small dataset is missing. Raises DataError for a split that leaves either part empty.
    """
    total = len(y_train)
    count = round(validation * total) if isinstance(validation, float) else validation
    if not 0 < count < total:
        raise DataError(
            f"validation: {validation} of {total} training images leaves a part empty; use 1 to {total - 1}"
        )
    classes, sizes = np.unique(y_train, return_counts=True)
    exact = sizes * (count / total)
    quota = np.floor(exact).astype(int)
    quota[np.argsort(quota - exact, kind="stable")[: count - quota.sum()]] += 1
    chosen = [
        stream(seed, "validation", int(label)).permutation(np.flatnonzero(y_train == label))[:n]
        for label, n in zip(classes, quota, strict=True)
    ]
    validation_indices = np.sort(np.concatenate(chosen)).astype(np.int64)
    training = np.setdiff1d(np.arange(total, dtype=np.int64), validation_indices, assume_unique=True)
    if training_images is not None:
        training = np.sort(stream(seed, "training_images").permutation(training)[:training_images])
    return training, validation_indices
