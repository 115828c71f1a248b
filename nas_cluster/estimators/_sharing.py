"""Settings that all estimators of shared tensors have."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from nas_cluster.core.component import Options
from nas_cluster.core.phases import PhaseSchedule
from nas_cluster.spaces import SearchSpace

__all__ = ["Sharing"]


class Sharing(Options):
    """How the phases in which the workers train the shared tensors, and the controller's updates, alternate."""

    updates: int = Field(50, ge=0)
    """Updates of the controller after each phase (of `children_per_replica` scored children each, times the replicas in
    a synchronous round)."""
    architectures_per_step: int | None = Field(None, ge=1)
    """M sampled architectures, each on a minibatch of its own, whose gradients are averaged; null: one for each worker.
    M = 1 suffices with one worker (Pham et al. 2018, section 2.2)."""
    same_architecture: bool = False
    """All M minibatches of a step go through one architecture instead."""

    def phase_schedule(self, phases: int, minibatches: int) -> PhaseSchedule:
        """Phases of so many minibatches each."""
        return PhaseSchedule(phases, self.updates, minibatches, self.architectures_per_step)

    def check_sharing(self, space: SearchSpace[Any]) -> list[str]:
        """Why the children of `space` cannot share their weights."""
        if space.shares_weights:
            return []
        return [f"estimator: the children of space {space.kind!r} share no weights (it has no build_shared)"]
