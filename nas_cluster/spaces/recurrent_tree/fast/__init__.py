"""The recurrent layer of child.py, fast: it computes the same from the same parameters, and a reader may skip it.

`layout.py` turns a cell into a short list of operations, `scan.py` runs them over a window, `factors.py` has the
gradient.
"""

from nas_cluster.spaces.recurrent_tree.fast.layout import Layout, layout_of
from nas_cluster.spaces.recurrent_tree.fast.scan import scan

__all__ = ["Layout", "layout_of", "scan"]
