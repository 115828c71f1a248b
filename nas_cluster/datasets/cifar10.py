"""50,000 + 10,000 photographs in 10 classes, 32x32 colour (Krizhevsky 2009)."""

from __future__ import annotations

from typing import ClassVar

from nas_cluster.datasets._torchvision import TorchvisionDataset

__all__ = ["CIFAR10"]


class CIFAR10(TorchvisionDataset):
    """50,000 + 10,000 photographs in 10 classes, 32x32 colour (Krizhevsky 2009)."""

    torchvision_name: ClassVar[str] = "CIFAR10"
    classes: ClassVar[int] = 10
