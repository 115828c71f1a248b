"""Trains one image classifier. The host never waits for the device inside an epoch."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas_cluster.core import reporting
from nas_cluster.nn.protocols import follows_progress, training_logits
from nas_cluster.training.images import ImageStore
from nas_cluster.training.plan import IndexPlan
from nas_cluster.training.precision import choose_precision
from nas_cluster.training.result import TrainingResult
from nas_cluster.training.settings import ImageSettings, TrainingSettings
from nas_cluster.training.step import TrainingStep

__all__ = ["classification_loss", "evaluate", "train_image_classifier"]


def train_image_classifier(
    model: nn.Module, store: ImageStore, plan: IndexPlan, settings: TrainingSettings
) -> TrainingResult:
    """Train `model` in place for the settings' epochs; validation accuracy after each.

    Raises Diverged when an epoch's loss is not finite.
    """
    device = store.device
    model = model.to(device).to(memory_format=torch.channels_last)
    _set_batch_norm(model, settings)
    dtype, reason = choose_precision(settings, model, device.type)
    about = {"precision": str(dtype).removeprefix("torch."), "precision_reason": reason}
    result = TrainingResult("accuracy", "images", about=about)
    training = _Training(model, store, settings, dtype)
    started = time.perf_counter()
    for epoch in range(settings.epochs):
        model.train()
        training.loss_sum.zero_()
        rows_S6B = torch.from_numpy(plan.epoch(epoch).stacked()).to(device)
        for step in range(plan.steps):
            t = epoch + step / plan.steps
            training.progress.fill_(t / settings.epochs)
            training.step(rows_S6B[step], settings.schedule.rate(t, settings.epochs, settings.learning_rate))
        result.check_loss(float(training.loss_sum) / plan.steps)  # here the host waits for the epoch
        result.end_epoch(evaluate(model, store.validation_batches(), dtype))
    images = settings.epochs * plan.steps * plan.batch
    result.per_second = images / (time.perf_counter() - started)
    result.path, result.notes = training.path, training.notes
    return result


def classification_loss(
    model: Any, store: ImageStore, rows_6B: Tensor, settings: ImageSettings, dtype: torch.dtype
) -> Tensor:
    """Mean cross entropy of one batch of an index plan, and the auxiliary classifier's times its weight."""
    exact = torch.float32 if dtype == torch.bfloat16 else dtype
    images, labels = store.training_batch(rows_6B, exact)
    with _autocast(store.device, dtype):
        logits, auxiliary = training_logits(model, images)
    loss = F.cross_entropy(logits.to(exact), labels, label_smoothing=settings.label_smoothing)
    if auxiliary is None:
        return loss
    aside = F.cross_entropy(auxiliary.to(exact), labels, label_smoothing=settings.label_smoothing)
    return loss + settings.auxiliary_weight * aside


def evaluate(model: Any, batches: Iterable[tuple[Tensor, Tensor]], dtype: torch.dtype) -> float:
    """Accuracy of `model` on batches of (images, labels), in evaluation mode."""
    if model.training:  # a network of all children has thousands of modules to tell
        model.eval()
    device = next(model.parameters()).device
    hits, seen = torch.zeros((), dtype=torch.int64, device=device), 0
    with torch.no_grad(), _autocast(device, dtype):
        for images, labels in batches:
            reporting.made()
            hits += (model(images).argmax(1) == labels).sum()
            seen += len(labels)
    return int(hits) / seen


def _set_batch_norm(model: nn.Module, settings: TrainingSettings) -> None:
    """What the settings say of batch norm, in every layer that is one."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eps = settings.batch_norm_epsilon or module.eps
            module.momentum = settings.batch_norm_momentum or module.momentum


def _autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16, cache_enabled=False)


class _Training(TrainingStep):
    """One step on a batch of the index plan (6, B).

    progress: the child's own buffer of that name, where it has one (drop path follows it); set before every step.
    """

    def __init__(self, model: nn.Module, store: ImageStore, settings: TrainingSettings, dtype: torch.dtype) -> None:
        def optimizer(rate: float | Tensor) -> torch.optim.Optimizer:
            return torch.optim.SGD(
                model.parameters(),
                lr=rate,
                momentum=settings.momentum,
                nesterov=settings.nesterov,
                weight_decay=settings.weight_decay,
                fused=True,
            )

        super().__init__(model, optimizer, store.device, settings.gradient_clip)
        self._model = model
        self._store = store
        self._settings = settings
        self.progress = model.progress if follows_progress(model) else torch.zeros((), device=store.device)
        self._dtype = dtype

    def loss(self, rows_6B: Tensor) -> Tensor:
        """`classification_loss` of the model."""
        return classification_loss(self._model, self._store, rows_6B, self._settings, self._dtype)
