"""Performance estimators: how a child is scored. One file per kind."""

from nas_cluster.estimators.base import Estimator, Evaluator, SharedEvaluator, WorkerContext

__all__ = ["Estimator", "Evaluator", "SharedEvaluator", "WorkerContext"]
