"""Controllers: the policy networks. One file per kind."""

from nas_cluster.controllers.base import Controller, PolicyNetwork, StepScores

__all__ = ["Controller", "PolicyNetwork", "StepScores"]
