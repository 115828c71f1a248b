"""Weight sharing on images: all children are parts of one network, trained between the controller's updates (ENAS)."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field

from nas_cluster.core.evaluation import Child, Evaluation
from nas_cluster.core.phases import PhaseOrder, PhaseResult, PhaseSchedule
from nas_cluster.core.seeds import derive, stream
from nas_cluster.core.task import ImageTask
from nas_cluster.datasets import Arrays, ImageArrays, resident, train_validation_split
from nas_cluster.estimators._sharing import Sharing
from nas_cluster.estimators.base import Estimator, SharedEvaluator, WorkerContext
from nas_cluster.spaces import SearchSpace
from nas_cluster.training.schedules import CosineRestarts, Schedule
from nas_cluster.training.settings import TrainingSettings

__all__ = ["SharedWeights"]


class SharedWeights(Sharing, TrainingSettings, Estimator):
    """Pham et al. 2018, sections 2.2 and 3.2. `epochs` phases of one pass over the training images each.

    A child's metric is its accuracy, with the shared weights, on one minibatch of held-out images drawn for it.
    """

    epochs: int = Field(310, ge=1)
    batch_size: int = Field(128, ge=1)
    learning_rate: float = Field(0.05, gt=0)
    schedule: Schedule = CosineRestarts()
    gradient_clip: float | None = Field(5.0, gt=0)
    validation: Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, lt=1)] = 5000
    score_on: Literal["minibatch", "validation"] = "minibatch"
    """One minibatch drawn by the child's seed, as in the search; or all held-out images, to choose between winners."""
    reward: Literal["accuracy", "accuracy_cubed"] = "accuracy"

    def open(self, context: WorkerContext) -> SharedEvaluator:
        """Load the images and build the network of all children, once per worker."""
        return _Shared(self, context)

    def reward_of(self, metric: float) -> float:
        """The accuracy, or its cube."""
        return metric**3 if self.reward == "accuracy_cubed" else metric

    def phases(self, data: Arrays | None) -> PhaseSchedule:
        """One epoch a phase; each architecture of a step has a minibatch of its own."""
        assert data is not None
        trained, _ = self.split_sizes(data.training_examples)
        return self.phase_schedule(self.epochs, trained // self.batch_size)

    def child_task(self, task: ImageTask) -> ImageTask:
        """The dataset's task at `input_size`."""
        size = self.input_size
        return task if size is None else ImageTask(size, size, task.channels, task.classes)

    def exact(self) -> Self:
        """Scores on everything that is held out."""
        return self.model_copy(update={"score_on": "validation"})

    def check(self, space: SearchSpace[Any]) -> list[str]:
        """The space must have a network of all children."""
        return self.check_sharing(space)


class _Shared:
    """The warm part: images and shared network on the device."""

    def __init__(self, settings: SharedWeights, context: WorkerContext) -> None:
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
        self._context = context
        self._store = ImageStore(data, training, validation, settings, context.device)
        self._plan = self._store.plan(derive(context.seed, "shared_weights"))
        torch.manual_seed(derive(context.seed, "shared_weights"))
        network = context.space.build_shared(self._store.task)
        self._dtype, _ = choose_precision(settings, network, context.device)
        self._training = SharedTraining(
            network,
            lambda flat: torch.optim.SGD(
                flat,
                lr=settings.learning_rate,
                momentum=settings.momentum,
                nesterov=settings.nesterov,
                weight_decay=settings.weight_decay,
                fused=True,
            ),
            self._store.device,
            settings.gradient_clip,
        )

    def train_phase(self, order: PhaseOrder) -> PhaseResult:
        """One epoch: minibatch step * M + slot of the epoch's plan goes to architecture `slot` of `step`."""
        import torch

        from nas_cluster.training.image_classifier import classification_loss
        from nas_cluster.training.shared import Bound

        settings, network = self._settings, self._training.network
        rows_S6B = torch.from_numpy(self._plan.epoch(order.phase).stacked()).to(self._store.device)
        progress = dict(network.named_buffers()).get("progress")
        steps = len(order.tokens)
        space = self._context.space

        def loss(step: int, slot: int) -> torch.Tensor:
            if progress is not None:
                progress.fill_((order.phase + step / steps) / settings.epochs)
            torch.manual_seed(derive(self._context.seed, "shared_weights", order.phase, step, slot))
            architectures = order.tokens[step]
            architecture = space.decode(architectures[0 if settings.same_architecture else slot])
            row = rows_S6B[(step * len(architectures) + slot) % len(rows_S6B)]
            return classification_loss(Bound(network, architecture), self._store, row, settings, self._dtype)

        return self._training.train(
            order,
            loss,
            lambda step: settings.schedule.rate(order.phase + step / steps, settings.epochs, settings.learning_rate),
        )

    def evaluate(self, child: Child) -> Evaluation:
        """Accuracy with the shared weights. Raises ValueError when the file of the weights is damaged."""
        from nas_cluster.training.image_classifier import evaluate
        from nas_cluster.training.shared import Bound

        started = time.perf_counter()
        self._training.hold(child.shared)
        network: Any = self._training.network
        architecture = self._context.space.parse(child.architecture)
        batches = self._store.validation_batches()
        if self._settings.score_on == "minibatch":
            held_out = self._store.validation
            count = min(self._settings.batch_size, len(held_out))
            chosen = stream(child.seed, "minibatch").choice(held_out, count, replace=False)
            batches = self._store.batches_of(np.sort(chosen))
        accuracy = evaluate(Bound(network, architecture), batches, self._dtype)
        parameters = sum(tensor.numel() for tensor in network.tensors_of(architecture).values())
        return Evaluation(metric=accuracy, seconds=time.perf_counter() - started, parameters=parameters)
