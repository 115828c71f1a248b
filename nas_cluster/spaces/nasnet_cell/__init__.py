"""NASNet's cells: a normal and a reduction cell, stacked into networks of any size."""

from nas_cluster.spaces.nasnet_cell.space import NASNetCell

__all__ = ["NASNetCell"]
