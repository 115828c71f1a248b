"""60,000 + 10,000 articles of clothing, 28x28 grey (Xiao et al. 2017)."""

from __future__ import annotations

from typing import ClassVar

from nas_cluster.datasets._idx import IdxDataset

__all__ = ["FashionMNIST"]


class FashionMNIST(IdxDataset):
    """60,000 + 10,000 articles of clothing, 28x28 grey (Xiao et al. 2017)."""

    torchvision_name: ClassVar[str] = "FashionMNIST"
    classes: ClassVar[int] = 10
