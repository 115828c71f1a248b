"""Datasets: one file per kind. Files that begin with an underscore are not kinds."""

from nas_cluster.datasets._cache import resident
from nas_cluster.datasets._split import train_validation_split
from nas_cluster.datasets._text import TextDataset
from nas_cluster.datasets.base import Arrays, Dataset, ImageArrays, TextArrays

__all__ = ["Arrays", "Dataset", "ImageArrays", "TextArrays", "TextDataset", "resident", "train_validation_split"]
