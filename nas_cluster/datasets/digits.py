"""scikit-learn's handwritten digits: real images that ship inside a wheel, so everything runs without a download."""

from __future__ import annotations

from typing import Any

import numpy as np

from nas_cluster.core.seeds import stream
from nas_cluster.datasets.base import Dataset, ImageArrays

__all__ = ["Digits"]

_TEST_SHARE = 5
"""Every fifth image of each class, in a fixed random order, is a test image."""


class Digits(Dataset):
    """1,797 images of 8x8 grey pixels in 10 classes (UCI ML hand-written digits, test part)."""

    def load(self) -> ImageArrays:
        """Read them from scikit-learn. The split into training and test images is fixed."""
        from sklearn.datasets import load_digits

        data = load_digits()
        images = (data.images[..., None] * (255 / 16)).round().astype(np.uint8)
        labels = data.target.astype(np.int64)
        test = np.zeros(len(labels), bool)
        for label in range(10):
            members = stream(0, "digits", label).permutation(np.flatnonzero(labels == label))
            test[members[: len(members) // _TEST_SHARE]] = True
        return ImageArrays(images[~test], labels[~test], images[test], labels[test], classes=10)

    def identity(self) -> dict[str, Any]:
        """There is only one."""
        return {"kind": "digits", "version": 1}
