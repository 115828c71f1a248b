"""For people who extend the package: conformance checks that every component must pass.

Each function takes one component and raises AssertionError, with what is wrong, when a promise of its interface does
not hold. The package's own tests run them over every kind found on disk.
"""

from nas_cluster.testing.controllers import check_controller
from nas_cluster.testing.datasets import check_dataset
from nas_cluster.testing.estimators import check_estimator
from nas_cluster.testing.spaces import check_shared, check_space
from nas_cluster.testing.strategies import check_strategy

__all__ = ["check_controller", "check_dataset", "check_estimator", "check_shared", "check_space", "check_strategy"]
