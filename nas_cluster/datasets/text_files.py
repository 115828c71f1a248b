"""Your own text: three files, by words or by characters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nas_cluster.datasets._text import TextDataset, file_identity, read_text

__all__ = ["TextFiles"]

_PARTS = ("train", "validation", "test")


class TextFiles(TextDataset):
    """Any UTF-8 text, training, validation and test each in a file."""

    train: str
    validation: str
    test: str

    def texts(self) -> list[tuple[str, str]]:
        """Read the three files. Raises DataError: the file that is missing, or is no text."""
        return [(str(path), read_text(where, path)) for where, path in self._paths()]

    def identity(self) -> dict[str, Any]:
        """The options, and each file's place, size and time."""
        files = {name: file_identity(where, path) for name, (where, path) in zip(_PARTS, self._paths(), strict=True)}
        return {**self.model_dump(), **files}

    def _paths(self) -> list[tuple[str, Path]]:
        return [(f"dataset.{name}", Path(getattr(self, name)).expanduser()) for name in _PARTS]
