"""Search spaces: one folder per kind."""

from nas_cluster.spaces.base import Architecture, SearchSpace

__all__ = ["Architecture", "SearchSpace"]
