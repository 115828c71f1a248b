"""Datasets: one file per kind. Files that begin with an underscore are not kinds."""

from nas_cluster.datasets._cache import resident
from nas_cluster.datasets._split import train_validation_split
from nas_cluster.datasets.base import Dataset, ImageArrays

__all__ = ["Dataset", "ImageArrays", "resident", "train_validation_split"]
