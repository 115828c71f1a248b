"""Train from scratch: the estimator of NAS-RL and NASNet."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from nas_cluster.core.evaluation import Child
from nas_cluster.core.task import ImageTask
from nas_cluster.datasets import Arrays, ImageArrays, train_validation_split
from nas_cluster.estimators._warm import WarmTrainer
from nas_cluster.estimators.base import Estimator, Evaluator, WorkerContext
from nas_cluster.training.settings import TrainingSettings

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Train"]

_LAST_EPOCHS = 5


class Train(TrainingSettings, Estimator):
    """Each child is trained for its budget; its metric is accuracy on images held out of the training set."""

    counts: Literal["last", "best", "max_of_last_5"] = "last"
    """Which epoch's validation accuracy counts; max_of_last_5 is Zoph & Le 2017's."""

    def open(self, context: WorkerContext) -> Evaluator:
        """Load the dataset and start the device, once per worker."""
        return _Trainer(self, context)

    def child_task(self, task: ImageTask) -> ImageTask:
        """The dataset's task at `input_size`."""
        return task if self.input_size is None else replace(task, height=self.input_size, width=self.input_size)

    def forward_passes(self, data: Arrays | None) -> float:
        """Forward passes of one image that a child costs; a backward pass counts as two."""
        assert data is not None
        trained, held_out = self.split_sizes(data.training_examples)
        return self.epochs * (3 * trained + held_out)

    def score(self, accuracies: list[float]) -> float:
        """The accuracy of a child whose validation accuracy per epoch is given."""
        if self.counts == "last":
            return accuracies[-1]
        return max(accuracies if self.counts == "best" else accuracies[-_LAST_EPOCHS:])


class _Trainer(WarmTrainer):
    """The warm part: images on the device, libraries loaded."""

    def __init__(self, settings: Train, context: WorkerContext) -> None:
        import torch

        from nas_cluster.training.images import ImageStore

        torch.backends.cudnn.benchmark = context.device == "cuda"
        data = context.arrays(ImageArrays)
        training, validation = train_validation_split(
            data.y_train, settings.validation, context.seed, settings.training_images
        )
        self._settings = settings
        self._store = ImageStore(data, training, validation, settings, context.device)
        super().__init__(context, self._store.task)

    def train(self, model: nn.Module, child: Child) -> tuple[dict[str, float], dict[str, Any]]:
        """Train by the index plan of the child's seed."""
        import torch

        from nas_cluster.training.image_classifier import evaluate, train_image_classifier

        result = train_image_classifier(model, self._store, self._store.plan(child.seed), self._settings)
        metrics = {"accuracy": self._settings.score(result.curve), "loss": result.losses[-1]}
        if self.context.test:
            dtype = getattr(torch, result.about["precision"])
            metrics["test_accuracy"] = evaluate(model, self._store.test_batches(), dtype)
        return metrics, result.details()
