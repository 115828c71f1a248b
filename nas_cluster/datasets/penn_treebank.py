"""The Penn Treebank as language models use it: Mikolov's preprocessing, 10,000 words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nas_cluster.datasets._files import absent
from nas_cluster.datasets._text import TextDataset, file_identity, read_text

__all__ = ["PennTreebank"]

_FILES = ("ptb.train.txt", "ptb.valid.txt", "ptb.test.txt")


class PennTreebank(TextDataset):
    """929,589 + 73,760 + 82,430 words (Mikolov et al. 2010); as characters 5,017,482 + 393,042 + 442,423 (2012).

    Needs the three files, which may not be passed on freely. The space at both ends of every line is no character.
    """

    root: str
    """Folder of ptb.train.txt, ptb.valid.txt and ptb.test.txt."""

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return Path(self.root).expanduser()

    def texts(self) -> list[tuple[str, str]]:
        """Read the three files. Raises DataError: the folder or the file that is missing, or is no text."""
        return [(str(path), _stripped(read_text("dataset.root", path))) for path in self._paths()]

    def identity(self) -> dict[str, Any]:
        """Each file's place, size and time."""
        return {**self.model_dump(), "root": [file_identity("dataset.root", path) for path in self._paths()]}

    def _paths(self) -> list[Path]:
        if not self.folder.is_dir():
            raise absent("dataset.root", self.folder, folder=True)
        return [self.folder / name for name in _FILES]


def _stripped(text: str) -> str:
    return "\n".join(line.strip(" ") for line in text.split("\n"))
