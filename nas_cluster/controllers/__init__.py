"""Controllers: the policy networks. One file per kind."""

from nas_cluster.controllers.base import Controller, PolicyNetwork, Sample

__all__ = ["Controller", "PolicyNetwork", "Sample"]
