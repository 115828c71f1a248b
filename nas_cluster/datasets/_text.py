"""What the datasets of text have in common: three texts become streams of token ids over one vocabulary."""

from __future__ import annotations

from abc import abstractmethod
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import chain, count
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from nas_cluster.core.errors import DataError
from nas_cluster.core.task import LanguageTask, Task
from nas_cluster.datasets._files import absent, reason
from nas_cluster.datasets.base import Arrays, Dataset, TextArrays

__all__ = ["EOS", "UNK", "TextDataset", "file_identity", "read_text"]

EOS = "<eos>"
"""The token at the end of every line."""
UNK = "<unk>"
"""The token that stands for all tokens outside the vocabulary."""


class TextDataset(Dataset):
    """Training, validation and test text as token ids. A line is its words, or its characters, and then `<eos>`.

    Words are what stands between white space; characters are all of them, spaces too. The vocabulary is that of the
    whole training text, the most frequent token first; a token of another text that it lacks becomes `<unk>`, which is
    added to it only when there is such a token.
    """

    task_type: ClassVar[type[Task]] = LanguageTask
    arrays_type: ClassVar[type[Arrays]] = TextArrays

    level: Literal["word", "character"] = "word"
    """What a token is."""
    limit: int | None = Field(None, ge=2)
    """Only the first so many tokens of the training text are trained on; the vocabulary stays that of all of it."""
    max_vocabulary: int | None = Field(None, ge=3)
    """Keep only the most frequent tokens of the training text, `<eos>` and `<unk>` among them."""

    @abstractmethod
    def texts(self) -> list[tuple[str, str]]:
        """(what messages call it, the text) of the training, the validation and the test text.

        Raises DataError as `load` does.
        """

    def load(self) -> TextArrays:
        """Read the texts and number their tokens.

        Raises DataError: a text that is not there, cannot be read, is empty, or has only one word.
        """
        texts = self.texts()
        for name, text in texts:
            if not text.strip():
                raise DataError(f"{name}: is empty")
        train, validation, test = (self._tokens(text) for _, text in texts)
        ids, tokens = _number(train)
        if len(words := set(tokens) - {EOS, UNK}) < 2:
            only = f"the only {self.level} is {min(words)!r}" if words else f"there is no {self.level} but {UNK}"
            raise DataError(f"{texts[0][0]}: {only}; a language model needs two or more to choose from")
        ids, vocabulary = self._cut(ids, tokens)
        known = {token: i for i, token in enumerate(vocabulary)}
        unknown = known.get(UNK, len(vocabulary))
        held_out, tested = (np.fromiter((known.get(t, unknown) for t in part), np.int32) for part in (validation, test))
        if any(len(vocabulary) in part for part in (ids, held_out, tested)):
            vocabulary.append(UNK)
        return TextArrays(ids[: self.limit], held_out, tested, vocabulary)

    def _tokens(self, text: str) -> Iterator[str]:
        """The tokens of one text, line by line; whether its last line ends with a line end makes no difference."""
        lines = text.removesuffix("\n").split("\n")
        split = str.split if self.level == "word" else list
        return chain.from_iterable((*split(line), EOS) for line in lines)

    def _cut(self, ids: NDArray[np.int32], tokens: list[str]) -> tuple[NDArray[np.int32], list[str]]:
        """Ids by falling frequency (equal ones: as they first occur), the rarest beyond `max_vocabulary` out.

        What is out has the id of `<unk>`, which is the number of tokens kept when `<unk>` is not among them.
        """
        order = np.argsort(-np.bincount(ids), kind="stable").tolist()
        special = {EOS, UNK}
        if self.max_vocabulary is not None and len({*tokens, UNK}) > self.max_vocabulary:
            words = [i for i in order if tokens[i] not in special]
            out = set(words[self.max_vocabulary - len(special) :])
            order = [i for i in order if i not in out]
        vocabulary = [tokens[i] for i in order]
        unknown = vocabulary.index(UNK) if UNK in vocabulary else len(vocabulary)
        new = np.full(len(tokens), unknown, np.int32)
        new[order] = np.arange(len(order), dtype=np.int32)
        return new[ids], vocabulary


def _number(tokens: Iterable[str]) -> tuple[NDArray[np.int32], list[str]]:
    """Every token's place in the list of different tokens, which are in the order in which they first occur."""
    index: defaultdict[str, int] = defaultdict(count().__next__)
    ids = array("i", map(index.__getitem__, tokens))
    return np.frombuffer(ids, np.int32), list(index)


def read_text(where: str, path: Path) -> str:
    """A UTF-8 file, its line ends made one. where: the option that named it. Raises DataError."""
    if not path.is_file():
        raise absent(where, path)
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: is not UTF-8 text (byte {error.start:,}: {error.reason}); convert it first"
        ) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({reason(error)})") from error


def file_identity(where: str, path: Path) -> list[Any]:
    """The file's place, size and time, for `Dataset.identity`. Raises DataError when it is not there."""
    if not path.is_file():
        raise absent(where, path)
    found = path.stat()
    return [str(path.resolve()), found.st_size, found.st_mtime_ns]
