"""50,000 + 10,000 photographs in 100 classes, 32x32 colour (Krizhevsky 2009)."""

from __future__ import annotations

from typing import ClassVar

from nas_cluster.datasets._torchvision import TorchvisionDataset

__all__ = ["CIFAR100"]


class CIFAR100(TorchvisionDataset):
    """50,000 + 10,000 photographs in 100 classes, 32x32 colour (Krizhevsky 2009)."""

    torchvision_name: ClassVar[str] = "CIFAR100"
    classes: ClassVar[int] = 100
