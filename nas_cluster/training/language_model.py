"""Trains one language model by truncated backpropagation. The host never waits for the device inside an epoch.

A model is what `core.task.LanguageTask` says. Shapes: T tokens of a window, B columns side by side, V words.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from nas_cluster.core import reporting
from nas_cluster.core.errors import Diverged
from nas_cluster.training.language_settings import LanguageSettings
from nas_cluster.training.result import TrainingResult
from nas_cluster.training.softmax_loss import softmax_loss
from nas_cluster.training.step import TrainingStep
from nas_cluster.training.text import NO_TARGET, TextStore

__all__ = ["perplexity", "train_language_model"]

_LARGEST_LOSS = 700.0
"""Nats per token; beyond it exp(loss) is no longer a number."""


def train_language_model(model: Any, store: TextStore, settings: LanguageSettings) -> TrainingResult:
    """Train `model` in place for the settings' epochs; validation perplexity after each.

    Raises Diverged when an epoch's training or validation loss is not finite.
    """
    model = model.to(store.device)
    training = _Training(model, store, settings)
    result = TrainingResult("perplexity", "tokens")
    started = time.perf_counter()
    for epoch in range(settings.epochs):
        model.train()
        training.start_epoch()
        for step in range(store.windows):
            rate = settings.schedule.rate(epoch + step / store.windows, settings.epochs, settings.learning_rate)
            training.step(store.window(step), rate)
        result.check_loss(float(training.loss_sum) / store.windows)  # here the host waits for the epoch
        result.end_epoch(perplexity(model, store.validation_windows()))
    tokens = settings.epochs * store.windows * store.columns * settings.sequence_length
    result.per_second = tokens / (time.perf_counter() - started)
    result.path, result.notes = training.path, training.notes
    return result


def perplexity(model: Any, windows: Iterable[tuple[Tensor, Tensor]]) -> float:
    """exp of the mean loss over all targets, in evaluation mode, state carried from window to window.

    Raises Diverged when that loss is not finite, or so large that its exponential is not.
    """
    if model.training:  # a network of all children has thousands of modules to tell
        model.eval()
    state: tuple[Tensor, ...] | None = None
    loss, seen = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.int64)
    with torch.no_grad():
        for tokens_TB, targets_TB in windows:
            reporting.made()
            if state is None:
                state = model.initial_state(tokens_TB.shape[1])
                loss, seen = loss.to(tokens_TB.device), seen.to(tokens_TB.device)
            features_TBE, state = model(tokens_TB, state)
            logits = model.decoder(features_TBE.flatten(0, 1))
            loss += F.cross_entropy(logits, targets_TB.flatten(), ignore_index=NO_TARGET, reduction="sum")
            seen += (targets_TB != NO_TARGET).sum()
    mean = float(loss / seen)
    if not mean < _LARGEST_LOSS:
        raise Diverged(f"the loss on held-out text is {mean:.4g}")
    return math.exp(mean)


class _Training(TrainingStep):
    """One step on a window (T+1, B). The state between windows stays in the same tensors, as a CUDA graph needs it."""

    def __init__(self, model: Any, store: TextStore, settings: LanguageSettings) -> None:
        def optimizer(rate: float | Tensor) -> torch.optim.Optimizer:
            shared: dict[str, Any] = {"lr": rate, "weight_decay": settings.weight_decay, "fused": True}
            if settings.optimizer == "adam":
                return torch.optim.Adam(model.parameters(), capturable=store.device.type == "cuda", **shared)
            return torch.optim.SGD(model.parameters(), momentum=settings.momentum, **shared)

        super().__init__(model, optimizer, store.device, settings.gradient_clip)
        self._model = model
        self._columns = store.columns
        self._state: tuple[Tensor, ...] = tuple(part.detach().clone() for part in model.initial_state(store.columns))

    def start_epoch(self) -> None:
        """Back to the beginning of the text."""
        self.loss_sum.zero_()
        self._keep(self._model.initial_state(self._columns))

    def loss(self, window: Tensor) -> Tensor:
        """Mean loss over the window's T*B predictions; the state goes on to the next window, its history does not."""
        before = tuple(part.clone() for part in self._state)  # the gradient is of these, which stay as they are
        features_TBE, state = self._model(window[:-1], before)
        self._keep(state)
        return softmax_loss(features_TBE, self._model.decoder, window[1:])

    def _keep(self, state: Iterable[Tensor]) -> None:
        for kept, new in zip(self._state, state, strict=True):
            kept.copy_(new.detach())
