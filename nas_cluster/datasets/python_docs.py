"""The topics of Python's own `help()`: real English text that is there wherever Python is."""

from __future__ import annotations

import platform
from typing import Any, Literal

from nas_cluster.core.errors import DataError
from nas_cluster.datasets._text import TextDataset

__all__ = ["PythonDocs"]

_SHARE = 10
"""Of every ten topics in alphabetical order, the ninth is for validation and the tenth for the test."""


class PythonDocs(TextDataset):
    """About half a million characters from the language reference (`pydoc_data.topics`), for tests and trying out.

    Another version of Python has another text, so figures compare only within one.
    """

    level: Literal["word", "character"] = "character"

    def texts(self) -> list[tuple[str, str]]:
        """Import them. Raises DataError for a Python that was installed without them."""
        try:
            from pydoc_data.topics import topics
        except ImportError as error:
            raise DataError(f"dataset {self.kind}: this Python has no pydoc_data ({error})") from error
        ordered = [topics[name].strip("\n") for name in sorted(topics)]
        validation, test = ordered[_SHARE - 2 :: _SHARE], ordered[_SHARE - 1 :: _SHARE]
        training = [text for i, text in enumerate(ordered) if i % _SHARE < _SHARE - 2]
        parts = (("train", training), ("validation", validation), ("test", test))
        return [(f"dataset {self.kind}, {name}", "\n".join(part)) for name, part in parts]

    def identity(self) -> dict[str, Any]:
        """The options, and which Python's text it is."""
        return {**self.model_dump(), "python": platform.python_version()}
