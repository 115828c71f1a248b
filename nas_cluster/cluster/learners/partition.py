"""Named tensors as one flat vector, cut into S contiguous slices whose sizes differ by at most one element."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from nas_cluster.strategies.base import Vector

__all__ = ["Layout", "shard_slices"]


@dataclass(frozen=True)
class Layout:
    """Names and shapes of the tensors in a flat vector, in order.

    >>> layout = Layout.of({"bias": np.zeros(2, np.float32), "matrix": np.ones((2, 3), np.float32)})
    >>> layout.size, [part.stop - part.start for part in shard_slices(layout.size, 3)]
    (8, [2, 3, 3])
    >>> layout.unflatten(np.arange(8, dtype=np.float32))["matrix"].shape
    (2, 3)
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, tensors: Mapping[str, NDArray[np.float32]]) -> Self:
        """The layout in which `flatten` writes these tensors."""
        return cls(tuple(tensors), tuple(tuple(t.shape) for t in tensors.values()))

    @property
    def size(self) -> int:
        """Elements of the flat vector."""
        return sum(int(np.prod(shape)) for shape in self.shapes)

    def flatten(self, tensors: Mapping[str, NDArray[np.float32]]) -> Vector:
        """The tensors as one float32 vector."""
        parts = [np.asarray(tensors[name], np.float32).ravel() for name in self.names]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def unflatten(self, vector: Vector) -> dict[str, NDArray[np.float32]]:
        """Inverse of `flatten`; the arrays are views."""
        result, offset = {}, 0
        for name, shape in zip(self.names, self.shapes, strict=True):
            size = int(np.prod(shape))
            result[name] = vector[offset : offset + size].reshape(shape)
            offset += size
        return result

    def to_json(self) -> dict[str, Any]:
        """Plain data for a snapshot."""
        return {"names": list(self.names), "shapes": [list(shape) for shape in self.shapes]}

    @classmethod
    def from_json(cls, data: Mapping[str, Sequence[Any]]) -> Self:
        """Inverse of `to_json`."""
        return cls(tuple(data["names"]), tuple(tuple(shape) for shape in data["shapes"]))


def shard_slices(size: int, shards: int) -> list[slice]:
    """Contiguous slices that cover 0..size exactly; tensors may be split, and some are empty when size < shards."""
    bounds = [size * index // shards for index in range(shards + 1)]
    return [slice(a, b) for a, b in pairwise(bounds)]
