"""A feature map that several operations read."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

__all__ = ["FeatureMap"]


class FeatureMap:
    """A map (N, C, H, W) offers itself as it is and rectified. It computes its ReLU once, when an operation first asks.

    spare: no operation reads the map as it is, so the ReLU overwrites it.

    >>> x = FeatureMap(Tensor([-1.0, 2.0]))
    >>> x.raw.tolist(), x.rectified.tolist(), x.rectified is x.rectified
    ([-1.0, 2.0], [0.0, 2.0], True)
    """

    __slots__ = ("_raw", "_rectified", "_spare")

    def __init__(self, raw: Tensor, *, spare: bool = False) -> None:
        self._raw = raw
        self._spare = spare
        self._rectified: Tensor | None = None

    @property
    def raw(self) -> Tensor:
        """The map itself."""
        assert not (self._spare and self._rectified is not None), "this map was overwritten by its ReLU"
        return self._raw

    @property
    def rectified(self) -> Tensor:
        """Its ReLU."""
        if self._rectified is None:
            self._rectified = F.relu(self._raw, inplace=self._spare)
        return self._rectified
