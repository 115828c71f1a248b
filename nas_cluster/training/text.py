"""The texts of a dataset as tensors on a device, and windows out of them.

Shapes: T tokens of a window, B columns side by side, L tokens of a column. Column b of the training text is its b-th
B-th part, so that a window's column goes on where that of the window before it ended.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from nas_cluster.datasets.base import TextArrays
from nas_cluster.training.language_settings import LanguageSettings

__all__ = ["NO_TARGET", "TextStore"]

NO_TARGET = -100
"""In place of a target: nothing is to be predicted here (`F.cross_entropy` ignores it)."""


class TextStore:
    """All texts for one worker process. On the CPU the training text is the memory-mapped file that workers share.

    Raises DataError when the training text is shorter than one window.
    """

    def __init__(self, data: TextArrays, settings: LanguageSettings, device: str) -> None:
        self.task = data.task
        self.device = torch.device(device)
        self.columns, self._length = settings.batch_size, settings.sequence_length
        self.windows = settings.windows(len(data.train))
        used = self.columns * (len(data.train) // self.columns)
        self._train_BL = self._load(data.train[:used]).view(self.columns, -1)
        self._validation = data.validation[: settings.validation_tokens]
        self._test = data.test

    def _load(self, ids: NDArray[np.int32]) -> Tensor:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            return torch.from_numpy(np.asarray(ids)).to(self.device)

    def window(self, number: int) -> Tensor:
        """Window `number` of an epoch (T+1, B) int64: its T tokens, and as targets the T from the second on."""
        start = number * self._length
        return self._train_BL[:, start : start + self._length + 1].t().to(torch.int64, copy=True).contiguous()

    def validation_windows(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The validation text, each of its tokens but the first predicted once: tokens and targets (T, B) in order."""
        return self._evaluation_windows(self._validation)

    def test_windows(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The test text in the same way, loaded on the first call for it."""
        return self._evaluation_windows(self._test)

    def _evaluation_windows(self, ids: NDArray[np.int32]) -> Iterator[tuple[Tensor, Tensor]]:
        """Columns are of equal length; those at the end are filled up with NO_TARGET. The last window is shorter."""
        count = len(ids) - 1
        columns = min(self.columns, math.ceil(count / self._length))
        filled = math.ceil(count / columns) * columns - count
        stream = self._load(ids).to(torch.int64)
        tokens, targets = (
            F.pad(part, (0, filled), value=value).view(columns, -1).t().contiguous()
            for part, value in ((stream[:-1], 0), (stream[1:], NO_TARGET))
        )
        for start in range(0, len(tokens), self._length):
            window = slice(start, start + self._length)
            yield tokens[window], targets[window]
