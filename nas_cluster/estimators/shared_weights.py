"""Weight sharing on images: all children are parts of one network, trained between the controller's updates (ENAS)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from pydantic import Field

from nas_cluster.core.evaluation import Child
from nas_cluster.core.seeds import stream
from nas_cluster.estimators._shared_images import ImageSharing, SharedImages
from nas_cluster.estimators.base import Estimator, SharedEvaluator, WorkerContext
from nas_cluster.spaces import SearchSpace
from nas_cluster.training.schedules import CosineRestarts, Schedule
from nas_cluster.training.settings import TrainingSettings

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SharedWeights"]


class SharedWeights(ImageSharing, TrainingSettings, Estimator):
    """Pham et al. 2018, sections 2.2 and 3.2. `epochs` phases of one pass over the training images each.

    A child's metric is its accuracy, with the shared weights, on one minibatch of held-out images drawn for it.
    """

    epochs: int = Field(310, ge=1)
    batch_size: int = Field(128, ge=1)
    learning_rate: float = Field(0.05, gt=0)
    schedule: Schedule = CosineRestarts()
    gradient_clip: float | None = Field(5.0, gt=0)
    score_on: Literal["minibatch", "validation"] = "minibatch"
    """One minibatch drawn by the child's seed, as in the search; or all held-out images, to choose between winners."""

    def open(self, context: WorkerContext) -> SharedEvaluator:
        """Load the images and build the network of all children, once per worker."""
        return _Shared(self, context)

    def exact(self) -> Self:
        """Scores on everything that is held out."""
        return self.model_copy(update={"score_on": "validation"})

    def check(self, space: SearchSpace[Any]) -> list[str]:
        """The space must have a network of all children."""
        return self.check_sharing(space)


class _Shared(SharedImages):
    def __init__(self, settings: SharedWeights, context: WorkerContext) -> None:
        import torch

        self._score_on, self._batch_size = settings.score_on, settings.batch_size
        super().__init__(
            settings,
            context,
            lambda flat: torch.optim.SGD(
                flat,
                lr=settings.learning_rate,
                momentum=settings.momentum,
                nesterov=settings.nesterov,
                weight_decay=settings.weight_decay,
                fused=True,
            ),
        )

    def held_out(self, child: Child) -> Iterable[tuple[Tensor, Tensor]]:
        """One minibatch drawn by the child's seed, or all."""
        if self._score_on == "validation":
            return super().held_out(child)
        indices = self.store.validation
        count = min(self._batch_size, len(indices))
        return self.store.batches_of(np.sort(stream(child.seed, "minibatch").choice(indices, count, replace=False)))
