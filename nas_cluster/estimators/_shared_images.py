"""What estimators of images with shared tensors have in common: phases of one epoch, accuracy on held-out images."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from nas_cluster.core.evaluation import Child, Evaluation
from nas_cluster.core.phases import PhaseOrder, PhaseResult, PhaseSchedule
from nas_cluster.core.seeds import derive
from nas_cluster.core.task import ImageTask
from nas_cluster.datasets import Arrays, ImageArrays, resident, train_validation_split
from nas_cluster.estimators._sharing import Sharing
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
    reward: Literal["accuracy", "accuracy_cubed"] = "accuracy"

    def reward_of(self, metric: float) -> float:
        """The accuracy, or its cube."""
        return metric**3 if self.reward == "accuracy_cubed" else metric

    def phases(self, data: Arrays | None) -> PhaseSchedule | None:
        """One epoch a phase; each architecture of a step has a minibatch of its own."""
        assert data is not None
        trained, _ = self.split_sizes(data.training_examples)
        return self.phase_schedule(self.epochs, trained // self.batch_size)

    def child_task(self, task: ImageTask) -> ImageTask:
        """The dataset's task at `input_size`."""
        size = self.input_size
        return task if size is None else ImageTask(size, size, task.channels, task.classes)


class SharedImages:
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
        import torch

        from nas_cluster.training.images import ImageStore
        from nas_cluster.training.precision import choose_precision
        from nas_cluster.training.shared import SharedTraining

        data = resident(context.dataset)
        assert isinstance(data, ImageArrays)
        training, validation = train_validation_split(
            data.y_train, settings.validation, context.seed, settings.training_images
        )
        self._settings = settings
        self._space = context.space
        self._seed = context.seed
        self.store = ImageStore(data, training, validation, settings, context.device)
        self._plan = self.store.plan(derive(context.seed, "shared_weights"))
        torch.manual_seed(derive(context.seed, "shared_weights"))
        network = context.space.build_shared(self.store.task)
        self._dtype, _ = choose_precision(settings, network, context.device)
        self._training = SharedTraining(network, make_optimizer, self.store.device, settings.gradient_clip, apart)

    def train_phase(self, order: PhaseOrder) -> PhaseResult:
        """One epoch: minibatch step * M + slot of the epoch's plan goes to architecture `slot` of `step`."""
        import torch

        from nas_cluster.training.image_classifier import classification_loss
        from nas_cluster.training.shared import Bound

        settings, network = self._settings, self._training.network
        rows_S6B = torch.from_numpy(self._plan.epoch(order.phase).stacked()).to(self.store.device)
        progress = dict(network.named_buffers()).get("progress")
        steps = len(order.tokens)

        def loss(step: int, slot: int) -> Tensor:
            if progress is not None:
                progress.fill_((order.phase + step / steps) / settings.epochs)
            torch.manual_seed(derive(self._seed, "shared_weights", order.phase, step, slot))
            architectures = order.tokens[step]
            architecture = self._space.decode(architectures[0 if settings.same_architecture else slot])
            row = rows_S6B[(step * len(architectures) + slot) % len(rows_S6B)]
            return classification_loss(Bound(network, architecture), self.store, row, settings, self._dtype)

        return self._training.train(
            order,
            loss,
            lambda step: settings.schedule.rate(order.phase + step / steps, settings.epochs, settings.learning_rate),
        )

    def evaluate(self, child: Child) -> Evaluation:
        """Accuracy with the shared tensors. Raises ValueError when their file is damaged."""
        import torch

        from nas_cluster.training.image_classifier import evaluate

        started = time.perf_counter()
        self._training.hold(child.shared)
        network: Any = self._training.network
        architecture = self._space.parse(child.architecture)
        accuracy = evaluate(self.bound(network, architecture, child), self.held_out(child), self._dtype)
        with torch.no_grad():
            parameters = sum(tensor.numel() for tensor in network.tensors_of(architecture).values())
        return Evaluation(metric=accuracy, seconds=time.perf_counter() - started, parameters=parameters)

    def bound(self, network: Any, architecture: Any, child: Child) -> Any:
        """The network as this child."""
        from nas_cluster.training.shared import Bound

        return Bound(network, architecture)

    def held_out(self, child: Child) -> Iterable[tuple[Tensor, Tensor]]:
        """The batches on which this child is scored."""
        return self.store.validation_batches()
