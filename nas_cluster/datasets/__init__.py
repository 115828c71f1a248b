"""Datasets: one file per kind."""

from nas_cluster.datasets.base import Dataset, ImageArrays

__all__ = ["Dataset", "ImageArrays"]
