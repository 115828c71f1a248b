"""Where the package keeps files that are its own and can be made again."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache_root"]


def cache_root() -> Path:
    """`NAS_CLUSTER_CACHE`, or nas_cluster in the user's cache folder."""
    chosen = os.environ.get("NAS_CLUSTER_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nas_cluster"
