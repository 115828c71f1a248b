"""60,000 + 10,000 handwritten digits, 28x28 grey (LeCun et al. 1998)."""

from __future__ import annotations

from typing import ClassVar

from nas_cluster.datasets._idx import IdxDataset

__all__ = ["MNIST"]


class MNIST(IdxDataset):
    """60,000 + 10,000 handwritten digits, 28x28 grey (LeCun et al. 1998)."""

    torchvision_name: ClassVar[str] = "MNIST"
    classes: ClassVar[int] = 10
