"""The index plan: every random number of a child's training input, known before it starts.

Which image, which crop, which mirror, which cutout at every step of every epoch follow from one seed. So a child's
result does not depend on where it runs, and a fast and a plain trainer can be compared batch by batch.
Shapes: S steps of one epoch, B images of a batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas_cluster.core.seeds import stream

__all__ = ["EpochPlan", "IndexPlan"]

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class EpochPlan:
    """One epoch: indices of images, crop offsets (top, left), mirror (0 or 1), cutout centres; all (S, B)."""

    index_SB: Integers
    top_SB: Integers
    left_SB: Integers
    mirror_SB: Integers
    cut_y_SB: Integers
    cut_x_SB: Integers

    def stacked(self) -> Integers:
        """All six as one array (S, 6, B): one transfer to a device."""
        parts = (self.index_SB, self.top_SB, self.left_SB, self.mirror_SB, self.cut_y_SB, self.cut_x_SB)
        return np.stack(parts, axis=1)


@dataclass(frozen=True)
class IndexPlan:
    """The plan of one training.

    indices: the training images. offsets: number of crop positions along height and width (1 for no crop).
    size: height and width of a crop. A last, smaller batch of an epoch is left out: every batch has the same shape.
    """

    seed: int
    indices: Integers
    batch_size: int
    offsets: tuple[int, int]
    size: tuple[int, int]
    flip: bool

    @property
    def batch(self) -> int:
        """Images per batch: `batch_size`, or all when there are fewer."""
        return min(self.batch_size, len(self.indices))

    @property
    def steps(self) -> int:
        """Batches per epoch."""
        return len(self.indices) // self.batch

    def epoch(self, number: int) -> EpochPlan:
        """The plan of one epoch; each is its own random stream."""
        rng = stream(self.seed, "plan", number)
        shape = (self.steps, self.batch)
        order = rng.permutation(self.indices)[: self.steps * self.batch].reshape(shape)
        return EpochPlan(
            index_SB=order,
            top_SB=rng.integers(self.offsets[0], size=shape),
            left_SB=rng.integers(self.offsets[1], size=shape),
            mirror_SB=rng.integers(2, size=shape) if self.flip else np.zeros(shape, np.int64),
            cut_y_SB=rng.integers(self.size[0], size=shape),
            cut_x_SB=rng.integers(self.size[1], size=shape),
        )
