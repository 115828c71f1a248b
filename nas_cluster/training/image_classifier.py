"""Trains one image classifier. The host never waits for the device inside an epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas_cluster.core.errors import Diverged
from nas_cluster.training.images import ImageStore
from nas_cluster.training.plan import IndexPlan
from nas_cluster.training.precision import choose_precision
from nas_cluster.training.settings import TrainingSettings

__all__ = ["TrainingResult", "evaluate", "train_image_classifier"]

_WARM_UP_STEPS = 3
"""Eager steps before a CUDA graph is captured: they let libraries choose their algorithms. They are real steps."""


@dataclass
class TrainingResult:
    """What training measured. `accuracies` and `losses` have one entry per epoch.

    images_per_second: training images by the wall time of the whole training, validation included.
    """

    accuracies: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    images_per_second: float = 0.0
    precision: str = ""
    precision_reason: str = ""
    path: str = "eager"
    notes: list[str] = field(default_factory=list)

    def details(self) -> dict[str, Any]:
        """Plain data for the journal."""
        return {
            "accuracies": [round(a, 6) for a in self.accuracies],
            "losses": [round(loss, 6) for loss in self.losses],
            "images_per_second": round(self.images_per_second, 1),
            "precision": self.precision,
            "precision_reason": self.precision_reason,
            "path": self.path,
            "notes": self.notes,
        }


def train_image_classifier(
    model: nn.Module, store: ImageStore, plan: IndexPlan, settings: TrainingSettings
) -> TrainingResult:
    """Train `model` in place for the settings' epochs; validation accuracy after each.

    Raises Diverged when an epoch's loss is not finite.
    """
    device = store.device
    model = model.to(device).to(memory_format=torch.channels_last)
    dtype, reason = choose_precision(settings, model, device.type)
    result = TrainingResult(precision=str(dtype).removeprefix("torch."), precision_reason=reason)
    training = _Training(model, store, settings, dtype)
    started = time.perf_counter()
    for epoch in range(settings.epochs):
        model.train()
        training.loss_sum.zero_()
        rows_S6B = torch.from_numpy(plan.epoch(epoch).stacked()).to(device)
        for step in range(plan.steps):
            rate = settings.schedule.rate(epoch + step / plan.steps, settings.epochs, settings.learning_rate)
            training.step(rows_S6B[step], rate)
        loss = float(training.loss_sum) / plan.steps  # here the host waits for the epoch
        if not math.isfinite(loss):
            raise Diverged(f"the training loss is {loss} in epoch {epoch + 1}")
        result.losses.append(loss)
        result.accuracies.append(evaluate(model, store.validation_batches(), dtype))
    images = settings.epochs * plan.steps * plan.batch
    result.images_per_second = images / (time.perf_counter() - started)
    result.path, result.notes = training.path, training.notes
    return result


def evaluate(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], dtype: torch.dtype) -> float:
    """Accuracy of `model` on batches of (images, labels), in evaluation mode."""
    model.eval()
    device = next(model.parameters()).device
    hits, seen = torch.zeros((), dtype=torch.int64, device=device), 0
    with torch.no_grad(), _autocast(device, dtype):
        for images, labels in batches:
            hits += (model(images).argmax(1) == labels).sum()
            seen += len(labels)
    return int(hits) / seen


def _autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16, cache_enabled=False)


class _Training:
    """One optimisation step, eager or as a captured CUDA graph; both run the same function."""

    def __init__(self, model: nn.Module, store: ImageStore, settings: TrainingSettings, dtype: torch.dtype) -> None:
        self._model = model
        self._store = store
        self._settings = settings
        self._dtype = dtype
        self._cuda = store.device.type == "cuda"
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=store.device)
        self.path = "eager"
        self.notes: list[str] = []
        rate: Any = torch.tensor(settings.learning_rate, device=store.device) if self._cuda else settings.learning_rate
        self._optimizer = torch.optim.SGD(
            model.parameters(),
            lr=rate,
            momentum=settings.momentum,
            nesterov=settings.nesterov,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self._steps = 0
        self._replay: Callable[[], None] | None = None
        self._rows: Tensor

    def step(self, rows_6B: Tensor, rate: float) -> None:
        """Train on one batch of the plan."""
        for group in self._optimizer.param_groups:
            if self._cuda:
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        if self._cuda and self._steps == _WARM_UP_STEPS:
            self._capture(rows_6B)
        self._steps += 1
        if self._replay is not None:
            self._rows.copy_(rows_6B)
            self._replay()
        else:
            self._compute(rows_6B)

    def _compute(self, rows_6B: Tensor) -> None:
        exact = torch.float32 if self._dtype == torch.bfloat16 else self._dtype
        images, labels = self._store.training_batch(rows_6B, exact)
        with _autocast(self._store.device, self._dtype):
            logits = self._model(images)
        loss = F.cross_entropy(logits.to(exact), labels, label_smoothing=self._settings.label_smoothing)
        self._optimizer.zero_grad(set_to_none=False)
        loss.backward()  # type: ignore[no-untyped-call]
        if self._settings.gradient_clip is not None:
            nn.utils.clip_grad_norm_(self._model.parameters(), self._settings.gradient_clip)
        self._optimizer.step()
        self.loss_sum += loss.detach()

    def _capture(self, rows_6B: Tensor) -> None:
        """Record the whole step as one CUDA graph. A child that cannot be captured goes on eagerly, and says so."""
        self._rows = rows_6B.clone()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self._compute(self._rows)
        except RuntimeError as error:
            torch.cuda.synchronize()
            self.notes.append(f"no CUDA graph: {str(error).splitlines()[0]}")
            return
        self._replay, self.path = graph.replay, "cuda_graph"
