"""What estimators of images with shared tensors have in common: phases of one epoch, accuracy on held-out images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from nas_cluster.core.evaluation import Child
from nas_cluster.core.phases import PhaseOrder, PhaseSchedule
from nas_cluster.core.seeds import derive
from nas_cluster.core.task import ImageTask
from nas_cluster.datasets import Arrays, ImageArrays, train_validation_split
from nas_cluster.estimators._sharing import Sharing
from nas_cluster.estimators._warm_sharing import PhaseLoss, WarmSharing
from nas_cluster.estimators.base import WorkerContext
from nas_cluster.training.settings import ImageSettings

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = ["ImageSharing", "SharedImages"]


class ImageSharing(Sharing, ImageSettings):
    """Settings of phases of one pass over the training images each."""

    epochs: int = Field(100, ge=1)
    """Phases."""
    learning_rate: float = Field(0.001, gt=0)
    validation: Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, lt=1)] = 5000

    def phases(self, data: Arrays | None) -> PhaseSchedule | None:
        """One epoch a phase; each architecture of a step has a minibatch of its own."""
        assert data is not None
        trained, _ = self.split_sizes(data.training_examples)
        return self.phase_schedule(self.epochs, trained // self.batch_size)

    def child_task(self, task: ImageTask) -> ImageTask:
        """The dataset's task at `input_size`."""
        size = self.input_size
        return task if size is None else ImageTask(size, size, task.channels, task.classes)


class SharedImages(WarmSharing):
    """The warm part of such an estimator: images and shared network on the device.

    make_optimizer, apart: as `SharedTraining` takes them.
    """

    def __init__(
        self,
        settings: ImageSharing,
        context: WorkerContext,
        make_optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
        *,
        apart: str = "",
    ) -> None:
        from nas_cluster.training.images import ImageStore
        from nas_cluster.training.precision import choose_precision

        data = context.arrays(ImageArrays)
        training, validation = train_validation_split(
            data.y_train, settings.validation, context.seed, settings.training_images
        )
        self._settings = settings
        self.store = ImageStore(data, training, validation, settings, context.device)
        self._plan = self.store.plan(derive(context.seed, "shared_weights"))
        super().__init__(settings, context, self.store.task, self.store.device, make_optimizer, apart=apart)
        self._dtype, _ = choose_precision(settings, self.network, context.device)

    def phase_loss(self, order: PhaseOrder) -> PhaseLoss:
        """Minibatch step * M + slot of the epoch's plan goes to architecture `slot` of `step`."""
        import torch

        from nas_cluster.nn.protocols import follows_progress
        from nas_cluster.training.image_classifier import classification_loss
        from nas_cluster.training.shared import Bound

        rows_S6B = torch.from_numpy(self._plan.epoch(order.phase).stacked()).to(self.store.device)
        progress = self.network.progress if follows_progress(self.network) else None
        M, steps = len(order.tokens[0]), len(order.tokens)

        def loss(step: int, slot: int, architecture: Any) -> Tensor:
            if progress is not None:
                progress.fill_((order.phase + step / steps) / self._settings.epochs)
            row = rows_S6B[(step * M + slot) % len(rows_S6B)]
            bound = Bound(self.network, architecture)
            return classification_loss(bound, self.store, row, self._settings, self._dtype)

        return loss

    def score(self, architecture: Any, child: Child) -> float:
        """Its accuracy on the images that are held out for it."""
        from nas_cluster.training.image_classifier import evaluate

        return evaluate(self.bound(architecture, child), self.held_out(child), self._dtype)

    def bound(self, architecture: Any, child: Child) -> Any:
        """The network as this child."""
        from nas_cluster.training.shared import Bound

        return Bound(self.network, architecture)

    def held_out(self, child: Child) -> Iterable[tuple[Tensor, Tensor]]:
        """The batches on which this child is scored."""
        return self.store.validation_batches()
