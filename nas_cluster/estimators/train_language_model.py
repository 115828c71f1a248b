"""Train a language model from scratch: the estimator of NAS-RL's recurrent cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from nas_cluster.core.evaluation import Child
from nas_cluster.datasets import Arrays, TextArrays
from nas_cluster.estimators._perplexity import PerplexityMetric
from nas_cluster.estimators._warm import WarmTrainer
from nas_cluster.estimators.base import Estimator, Evaluator, WorkerContext
from nas_cluster.training.language_settings import LanguageSettings

if TYPE_CHECKING:
    from torch import nn

__all__ = ["TrainLanguageModel"]


class TrainLanguageModel(PerplexityMetric, LanguageSettings, Estimator):
    """Each child is trained for its budget; its metric is its perplexity on the validation text: lower is better."""

    counts: Literal["last", "best"] = "last"
    """Which epoch's validation perplexity counts."""

    def open(self, context: WorkerContext) -> Evaluator:
        """Load the texts and start the device, once per worker. Raises DataError when the text is too short."""
        return _Trainer(self, context)

    def forward_passes(self, data: Arrays | None) -> float:
        """Forward passes of one token that a child costs; a backward pass counts as two."""
        assert isinstance(data, TextArrays)
        read = self.windows(len(data.train)) * self.batch_size * self.sequence_length
        return self.epochs * (3 * read + len(data.validation[: self.validation_tokens]))

    def score(self, perplexities: list[float]) -> float:
        """The perplexity of a child whose validation perplexity per epoch is given."""
        return perplexities[-1] if self.counts == "last" else min(perplexities)


class _Trainer(WarmTrainer):
    """The warm part: texts on the device, libraries loaded."""

    def __init__(self, settings: TrainLanguageModel, context: WorkerContext) -> None:
        from nas_cluster.training.text import TextStore

        data = context.arrays(TextArrays)
        self._settings = settings
        self._store = TextStore(data, settings, context.device)
        super().__init__(context, self._store.task)

    def train(self, model: nn.Module, child: Child) -> tuple[dict[str, float], dict[str, Any]]:
        """Train on the training text, in its order."""
        from nas_cluster.training.language_model import perplexity, train_language_model

        result = train_language_model(model, self._store, self._settings)
        metrics = {"perplexity": self._settings.score(result.curve), "loss": result.losses[-1]}
        if self.context.test:
            metrics["test_perplexity"] = perplexity(model, self._store.test_windows())
        return metrics, result.details()
