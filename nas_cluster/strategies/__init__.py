"""Search strategies: who proposes architectures, and what rewards teach it. One file per kind.

Files that begin with an underscore are not kinds.
"""

from nas_cluster.strategies._adam import Adam, AdamState
from nas_cluster.strategies.base import Gradient, Proposal, Proposer, Strategy

__all__ = ["Adam", "AdamState", "Gradient", "Proposal", "Proposer", "Strategy"]
