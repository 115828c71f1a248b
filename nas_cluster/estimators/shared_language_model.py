"""Weight sharing on text: all recurrent cells are parts of one, trained between the controller's updates (ENAS)."""

from __future__ import annotations

import time
from typing import Any, ClassVar, Literal, Self

from pydantic import Field

from nas_cluster.core.evaluation import Child, Evaluation
from nas_cluster.core.phases import PhaseOrder, PhaseResult, PhaseSchedule
from nas_cluster.core.seeds import derive, stream
from nas_cluster.core.task import LanguageTask, Task
from nas_cluster.datasets import Arrays, TextArrays, resident
from nas_cluster.estimators._sharing import Sharing
from nas_cluster.estimators.base import Estimator, SharedEvaluator, WorkerContext
from nas_cluster.spaces import SearchSpace
from nas_cluster.training.language_settings import LanguageSettings

__all__ = ["SharedLanguageModel"]


class SharedLanguageModel(Sharing, LanguageSettings, Estimator):
    """Pham et al. 2018, sections 2.2 and 3.1. `epochs` phases of one pass over the training text each.

    A child's metric is its perplexity, with the shared weights, on one window of the validation text drawn for it. With
    M architectures a step, each reads `batch_size` columns of its own: the text is cut into M times as many.
    """

    task_type: ClassVar[type[Task]] = LanguageTask
    metric_name: ClassVar[str] = "perplexity"

    epochs: int = Field(150, ge=1)
    batch_size: int = Field(64, ge=1)
    weight_decay: float = Field(1e-7, ge=0)
    score_on: Literal["window", "validation"] = "window"
    """One window drawn by the child's seed, as in the search; or the whole text, to choose between winners."""
    reward: Literal["inverse_perplexity", "inverse_square_perplexity"] = "inverse_perplexity"
    reward_scale: float = Field(80.0, gt=0)
    """The paper's constant c."""

    def open(self, context: WorkerContext) -> SharedEvaluator:
        """Load the texts and build the cell of all children, once per worker."""
        return _Shared(self, context)

    def reward_of(self, metric: float) -> float:
        """c / perplexity, or c / perplexity^2."""
        return self.reward_scale / (metric**2 if self.reward == "inverse_square_perplexity" else metric)

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


class _Shared:
    """The warm part: texts and shared network on the device."""

    def __init__(self, settings: SharedLanguageModel, context: WorkerContext) -> None:
        import torch

        from nas_cluster.training.shared import SharedTraining
        from nas_cluster.training.text import TextStore

        data = resident(context.dataset)
        assert isinstance(data, TextArrays)
        self._data = data
        self._settings = settings
        self._context = context
        self._store = TextStore(data, settings, context.device)
        self._windows = list(self._store.validation_windows())
        torch.manual_seed(derive(context.seed, "shared_weights"))
        network = context.space.build_shared(self._store.task)

        def optimizer(flat: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
            shared: dict[str, Any] = {"lr": 0.0, "weight_decay": settings.weight_decay, "fused": True}
            if settings.optimizer == "adam":
                return torch.optim.Adam(flat, **shared)
            return torch.optim.SGD(flat, momentum=settings.momentum, **shared)

        self._training = SharedTraining(network, optimizer, self._store.device, settings.gradient_clip)

    def train_phase(self, order: PhaseOrder) -> PhaseResult:
        """One pass over the text; each slot of a step carries the state of its own columns."""
        import torch

        from nas_cluster.training.softmax_loss import softmax_loss
        from nas_cluster.training.text import TextStore

        settings, network = self._settings, self._training.network
        M, B, steps = len(order.tokens[0]), settings.batch_size, len(order.tokens)
        wide = settings.model_copy(update={"batch_size": M * B})
        store = TextStore(self._data, wide, self._context.device)
        model: Any = network
        states = [model.initial_state(B) for _ in range(M)]
        space = self._context.space

        def loss(step: int, slot: int) -> torch.Tensor:
            torch.manual_seed(derive(self._context.seed, "shared_weights", order.phase, step, slot))
            architecture = space.decode(order.tokens[step][0 if settings.same_architecture else slot])
            window = store.window(step % store.windows)[:, slot * B : (slot + 1) * B]
            features_TBE, state = model(window[:-1], states[slot], architecture)
            states[slot] = tuple(part.detach() for part in state)
            return softmax_loss(features_TBE, model.decoder, window[1:].contiguous())

        return self._training.train(
            order,
            loss,
            lambda step: settings.schedule.rate(order.phase + step / steps, settings.epochs, settings.learning_rate),
        )

    def evaluate(self, child: Child) -> Evaluation:
        """Perplexity with the shared weights. Raises ValueError when the file of the weights is damaged."""
        from nas_cluster.training.language_model import perplexity
        from nas_cluster.training.shared import Bound

        started = time.perf_counter()
        self._training.hold(child.shared)
        network: Any = self._training.network
        architecture = self._context.space.parse(child.architecture)
        windows = self._windows
        if self._settings.score_on == "window":
            windows = [windows[int(stream(child.seed, "window").integers(len(windows)))]]
        metric = perplexity(Bound(network, architecture), windows)
        parameters = sum(tensor.numel() for tensor in network.tensors_of(architecture).values())
        return Evaluation(metric=metric, seconds=time.perf_counter() - started, parameters=parameters)
