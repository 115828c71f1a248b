"""What the datasets that torchvision downloads have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nas_cluster.core.errors import DataError
from nas_cluster.core.folders import cache_root
from nas_cluster.datasets._files import absent, reason
from nas_cluster.datasets.base import Dataset, ImageArrays

__all__ = ["TorchvisionDataset"]


class TorchvisionDataset(Dataset):
    """A published dataset in the files and folders that torchvision knows; torchvision downloads and reads them.

    It compares every file with the published MD5 first, so the pickles of CIFAR are only opened when they are the
    authors' own. Other versions of these images belong into `npz` or `image_folder`.
    """

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
        images, labels = self._arrays(self._open(train=train))
        return np.ascontiguousarray(images, np.uint8), np.asarray(labels, np.int64)

    def _open(self, *, train: bool) -> Any:
        """torchvision's dataset, its files downloaded and checked."""
        from torchvision import datasets

        if self.folder.is_file() or not (self.download or self.folder.is_dir()):
            raise absent("dataset.root", self.folder, folder=True)
        published = getattr(datasets, self.torchvision_name)
        try:
            return published(str(self.folder), download=self.download, **self._select(train))
        except (RuntimeError, OSError) as error:
            if self.download:
                message = f"cannot be fetched into {self.folder} ({reason(error)}); is this machine online?"
            else:
                message = f"a file in {self.folder} is missing or not the published one; set download: true to fetch it"
            raise DataError(f"dataset {self.kind}: {message}") from error

    def _select(self, train: bool) -> dict[str, Any]:
        """Which part, in torchvision's words."""
        return {"train": train}

    def _arrays(self, part: Any) -> tuple[Any, Any]:
        """Images (N, H, W, C) and labels of torchvision's dataset."""
        return part.data, part.targets
