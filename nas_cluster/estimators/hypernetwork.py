"""A hypernetwork writes a child's weights, and the child is scored as it is: SMASH (Brock et al. 2018, Algorithm 1)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import Field

from nas_cluster.core.evaluation import Child
from nas_cluster.core.phases import PhaseSchedule
from nas_cluster.core.seeds import derive
from nas_cluster.datasets import Arrays
from nas_cluster.estimators._shared_images import ImageSharing, SharedImages
from nas_cluster.estimators.base import Estimator, SharedEvaluator, WorkerContext
from nas_cluster.spaces import SearchSpace
from nas_cluster.training.schedules import Cosine, Schedule

__all__ = ["Hypernetwork"]

_GENERATOR = "generator."


class Hypernetwork(ImageSharing, Estimator):
    """`epochs` phases of one pass over the training images train the hypernetwork, and what it does not generate, on
    random architectures; all of them come before the first child. A child's metric is its accuracy with generated
    weights on all held-out images: 1 less the paper's SMASH score.

    Adam's settings are those of the released code.
    """

    batch_size: int = Field(50, ge=1)
    schedule: Schedule = Cosine()
    betas: tuple[float, float] = (0.5, 0.999)
    epsilon: float = Field(1e-4, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    """Of what is not generated; the hypernetwork, whose weights are divided by their norm, has none."""
    updates: int = Field(0, ge=0)
    """0: all phases come before the first child; else updates of the strategy after each, of children scored so far."""

    def open(self, context: WorkerContext) -> SharedEvaluator:
        """Load the images and build network and hypernetwork, once per worker."""
        return _Generated(self, context)

    def phases(self, data: Arrays | None) -> PhaseSchedule | None:
        """Of random architectures, whoever proposes the children."""
        schedule = super().phases(data)
        assert schedule is not None
        return replace(schedule, sample="random")

    def check(self, space: SearchSpace[Any]) -> list[str]:
        """The space must have a hypernetwork."""
        if space.generates_weights:
            return []
        return [f"estimator: space {space.kind!r} has no network that generates its children's weights"]


class _Generated(SharedImages):
    def __init__(self, settings: Hypernetwork, context: WorkerContext) -> None:
        import torch

        super().__init__(
            settings,
            context,
            lambda parts: torch.optim.Adam(
                [{"params": [free], "weight_decay": settings.weight_decay} for free in parts[:1]]
                + [{"params": [generating], "weight_decay": 0.0} for generating in parts[1:]],
                lr=settings.learning_rate,
                betas=settings.betas,
                eps=settings.epsilon,
                fused=True,
            ),
            apart=_GENERATOR,
        )

    def bound(self, architecture: Any, child: Child) -> Any:
        """The network with weights that are generated once, by noise of the child's seed."""
        import torch

        from nas_cluster.training.shared import Bound

        torch.manual_seed(derive(child.seed, "generate"))
        with torch.no_grad():
            return Bound(self.network, architecture, self.network.generate(architecture))
