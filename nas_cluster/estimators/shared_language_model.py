"""Weight sharing on text: all recurrent cells are parts of one, trained between the controller's updates (ENAS)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field

from nas_cluster.core.evaluation import Child
from nas_cluster.core.phases import PhaseOrder, PhaseSchedule
from nas_cluster.core.reward import Reward
from nas_cluster.core.seeds import stream
from nas_cluster.datasets import Arrays, TextArrays
from nas_cluster.estimators._perplexity import PerplexityMetric
from nas_cluster.estimators._sharing import Sharing
from nas_cluster.estimators._warm_sharing import PhaseLoss, WarmSharing
from nas_cluster.estimators.base import Estimator, SharedEvaluator, WorkerContext
from nas_cluster.spaces import SearchSpace
from nas_cluster.training.language_settings import LanguageSettings

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = ["SharedLanguageModel"]


class SharedLanguageModel(Sharing, PerplexityMetric, LanguageSettings, Estimator):
    """Pham et al. 2018, sections 2.2 and 3.1. `epochs` phases of one pass over the training text each.

    A child's metric is its perplexity, with the shared weights, on one window of the validation text drawn for it, its
    reward c / perplexity. With M architectures a step, each reads `batch_size` columns of its own: the text is cut into
    M times as many.
    """

    default_reward: ClassVar[Reward] = Reward(kind="inverse")

    epochs: int = Field(150, ge=1)
    batch_size: int = Field(64, ge=1)
    weight_decay: float = Field(1e-7, ge=0)
    score_on: Literal["window", "validation"] = "window"
    """One window drawn by the child's seed, as in the search; or the whole text, to choose between winners."""

    def open(self, context: WorkerContext) -> SharedEvaluator:
        """Load the texts and build the cell of all children, once per worker."""
        return _Shared(self, context)

    def phases(self, data: Arrays | None) -> PhaseSchedule:
        """One epoch a phase. Raises DataError when the text is shorter than one window."""
        assert isinstance(data, TextArrays)
        return self.phase_schedule(self.epochs, self.windows(len(data.train)))

    def exact(self) -> Self:
        """Scores on everything that is held out."""
        return self.model_copy(update={"score_on": "validation"})

    def check(self, space: SearchSpace[Any]) -> list[str]:
        """The space must have a cell of all children."""
        return self.check_sharing(space)


class _Shared(WarmSharing):
    """The warm part: texts and shared network on the device."""

    metric_name = "perplexity"

    def __init__(self, settings: SharedLanguageModel, context: WorkerContext) -> None:
        from nas_cluster.training.text import TextStore

        data = context.arrays(TextArrays)
        self._data = data
        self._settings = settings
        self._device = context.device
        store = TextStore(data, settings, context.device)
        self._windows = list(store.validation_windows())

        def optimizer(flat: list[nn.Parameter]) -> torch.optim.Optimizer:
            import torch

            shared: dict[str, Any] = {"lr": 0.0, "weight_decay": settings.weight_decay, "fused": True}
            if settings.optimizer == "adam":
                return torch.optim.Adam(flat, **shared)
            return torch.optim.SGD(flat, momentum=settings.momentum, **shared)

        super().__init__(settings, context, store.task, store.device, optimizer)

    def phase_loss(self, order: PhaseOrder) -> PhaseLoss:
        """Each slot of a step carries the state of its own columns."""
        from nas_cluster.training.softmax_loss import softmax_loss
        from nas_cluster.training.text import TextStore

        M, B = len(order.tokens[0]), self._settings.batch_size
        store = TextStore(self._data, self._settings.model_copy(update={"batch_size": M * B}), self._device)
        states = [self.network.initial_state(B) for _ in range(M)]

        def loss(step: int, slot: int, architecture: Any) -> Tensor:
            window = store.window(step % store.windows)[:, slot * B : (slot + 1) * B]
            features_TBE, state = self.network(window[:-1], states[slot], architecture)
            states[slot] = tuple(part.detach() for part in state)
            return softmax_loss(features_TBE, self.network.decoder, window[1:].contiguous())

        return loss

    def score(self, architecture: Any, child: Child) -> float:
        """Its perplexity, on one window drawn by the child's seed or on all."""
        from nas_cluster.training.language_model import perplexity
        from nas_cluster.training.shared import Bound

        windows = self._windows
        if self._settings.score_on == "window":
            windows = [windows[int(stream(child.seed, "window").integers(len(windows)))]]
        return perplexity(Bound(self.network, architecture), windows)
