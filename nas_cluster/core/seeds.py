"""Named random streams.

Every random number of a run comes from a stream named by what it is for, seeded by a hash of the run's seed and that
name: `stream(seed, "sample", replica, update)`. No stream has state to save, none depends on what others consumed, so
adding a replica or replaying one update changes no other number.
"""

from __future__ import annotations

import hashlib

import numpy as np

__all__ = ["derive", "stream"]


def derive(seed: int, *name: str | int) -> int:
    """A 63-bit seed for the stream `name` of a run seeded with `seed`."""
    text = "/".join(str(part) for part in (seed, *name))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def stream(seed: int, *name: str | int) -> np.random.Generator:
    """A fresh numpy generator for the stream `name`."""
    return np.random.default_rng(derive(seed, *name))
