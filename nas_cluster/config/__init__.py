"""JobConfig: YAML in, one frozen object out."""

from nas_cluster.config.job import JobConfig
from nas_cluster.config.sections import Budget, Control, Failures, Resources, Topology
from nas_cluster.config.stage import Correlate, Stage

__all__ = ["Budget", "Control", "Correlate", "Failures", "JobConfig", "Resources", "Stage", "Topology"]
