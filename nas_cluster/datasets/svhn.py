"""73,257 + 26,032 house numbers in 10 classes, 32x32 colour (Netzer et al. 2011)."""

from __future__ import annotations

from typing import Any, ClassVar

from nas_cluster.datasets._torchvision import TorchvisionDataset

__all__ = ["SVHN"]


class SVHN(TorchvisionDataset):
    """73,257 + 26,032 house numbers in 10 classes, 32x32 colour (Netzer et al. 2011)."""

    torchvision_name: ClassVar[str] = "SVHN"
    classes: ClassVar[int] = 10

    def _select(self, train: bool) -> dict[str, Any]:
        return {"split": "train" if train else "test"}

    def _arrays(self, part: Any) -> tuple[Any, Any]:
        return part.data.transpose(0, 2, 3, 1), part.labels
