"""The recurrent layer of child.py, fast: it computes the same from the same parameters, and a reader may skip it.

`plan.py` says in which order the nodes lie in memory, `levels.py` has a step of each level of the tree, up and down,
and `scan.py` runs them over a window.
"""

from nas_cluster.spaces.enas_recurrent.fast.plan import Plan, plan_of
from nas_cluster.spaces.enas_recurrent.fast.scan import Workspace, scan

__all__ = ["Plan", "Workspace", "plan_of", "scan"]
