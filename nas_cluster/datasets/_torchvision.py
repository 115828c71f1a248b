"""What the datasets that torchvision downloads have in common."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nas_cluster.core.errors import DataError
from nas_cluster.core.folders import cache_root
from nas_cluster.datasets.base import Dataset, ImageArrays

__all__ = ["TorchvisionDataset"]


class TorchvisionDataset(Dataset):
    """A published dataset in the files and folders that torchvision knows; torchvision downloads and checks them."""

    torchvision_name: ClassVar[str]
    classes: ClassVar[int]

    root: str | None = None
    """Folder of the files; null: a folder in the user's cache."""
    download: bool = True
    """Fetch the files when they are not there."""

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return Path(self.root).expanduser() if self.root else cache_root() / "downloads"

    def identity(self) -> dict[str, Any]:
        """Published datasets differ by name and place only."""
        return {"kind": self.kind, "root": str(self.folder.absolute())}

    def load(self) -> ImageArrays:
        """Read, and if allowed download, both parts. Raises DataError: what was looked for and where."""
        (x_train, y_train), (x_test, y_test) = self._part(train=True), self._part(train=False)
        return ImageArrays(x_train, y_train, x_test, y_test, classes=self.classes)

    def _part(self, *, train: bool) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        from torchvision import datasets

        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            part = getattr(datasets, self.torchvision_name)(
                str(self.folder), download=self.download, **self._select(train)
            )
        except (RuntimeError, OSError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            hint = "" if self.download else "; set download: true to fetch it"
            raise DataError(
                f"dataset {self.kind}: torchvision finds no whole copy in {self.folder} ({reason}){hint}"
            ) from error
        images, labels = self._arrays(part)
        return np.ascontiguousarray(images, np.uint8), np.asarray(labels, np.int64)

    def _select(self, train: bool) -> dict[str, Any]:
        """Which part, in torchvision's words."""
        return {"train": train}

    @abstractmethod
    def _arrays(self, part: Any) -> tuple[Any, Any]:
        """Images (N, H, W, C) and labels of a loaded torchvision dataset."""
