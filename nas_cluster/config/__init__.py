"""JobConfig: YAML in, one frozen object out."""

from nas_cluster.config.job import JobConfig
from nas_cluster.config.sections import Budget, Control, Failures, Resources, Topology

__all__ = ["Budget", "Control", "Failures", "JobConfig", "Resources", "Topology"]
