"""JobConfig: YAML in, one frozen object out."""

from nas_cluster.config.job import JobConfig
from nas_cluster.config.sections import Budget, Failures, Resources, Topology

__all__ = ["Budget", "Failures", "JobConfig", "Resources", "Topology"]
