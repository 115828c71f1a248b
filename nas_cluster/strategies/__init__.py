"""Search strategies: who proposes architectures, and what rewards teach it. One file per kind."""

from nas_cluster.strategies.base import Gradient, Proposal, Proposer, Strategy

__all__ = ["Gradient", "Proposal", "Proposer", "Strategy"]
