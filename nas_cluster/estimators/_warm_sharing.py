"""What estimators whose children share their tensors have in common: how a phase goes through sampled architectures,
and how a child is scored."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from nas_cluster.core.evaluation import Child, Evaluation
from nas_cluster.core.phases import PhaseOrder, PhaseResult
from nas_cluster.core.seeds import derive
from nas_cluster.core.task import Task
from nas_cluster.estimators.base import WorkerContext
from nas_cluster.training.schedules import Schedule

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = ["PhaseLoss", "WarmSharing"]

PhaseLoss = Callable[[int, int, Any], "Tensor"]
"""(step, slot, architecture) to the loss of that architecture, slot `slot` of M at that step, on data of its own."""


class _PhaseSettings(Protocol):
    @property
    def epochs(self) -> int: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def schedule(self) -> Schedule: ...
    @property
    def gradient_clip(self) -> float | None: ...
    @property
    def same_architecture(self) -> bool: ...


class WarmSharing(ABC):
    """The evaluator of one worker process: holds the shared network on the device. A subclass loads the data and gives
    `phase_loss` and `score`.

    task: what the network is built for. make_optimizer, apart: as `SharedTraining` takes them.
    """

    metric_name: ClassVar[str] = "accuracy"
    """The estimator's own."""

    def __init__(
        self,
        settings: _PhaseSettings,
        context: WorkerContext,
        task: Task,
        device: torch.device,
        make_optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
        *,
        apart: str = "",
    ) -> None:
        import torch

        from nas_cluster.training.shared import SharedTraining

        self._phase_settings = settings
        self._space = context.space
        self._seed = context.seed
        torch.manual_seed(derive(context.seed, "shared_weights"))
        network = context.space.build_shared(task)
        self._training = SharedTraining(network, make_optimizer, device, settings.gradient_clip, apart)
        self.network: Any = network

    @abstractmethod
    def phase_loss(self, order: PhaseOrder) -> PhaseLoss:
        """The losses of one phase, asked for in the order of its steps."""

    @abstractmethod
    def score(self, architecture: Any, child: Child) -> float:
        """The estimator's own metric of a child, with the shared tensors as they are."""

    def train_phase(self, order: PhaseOrder) -> PhaseResult:
        """One pass over the data. Raises Diverged when the loss is not finite."""
        import torch

        settings, steps = self._phase_settings, len(order.tokens)
        loss_of = self.phase_loss(order)

        def loss(step: int, slot: int) -> Tensor:
            architecture = self._space.decode(order.tokens[step][0 if settings.same_architecture else slot])
            torch.manual_seed(derive(self._seed, "shared_weights", order.phase, step, slot))
            return loss_of(step, slot, architecture)

        def rate(step: int) -> float:
            return settings.schedule.rate(order.phase + step / steps, settings.epochs, settings.learning_rate)

        return self._training.train(order, loss, rate)

    def evaluate(self, child: Child) -> Evaluation:
        """Score one child. Raises ValueError when the file of the shared tensors is damaged."""
        import torch

        started = time.perf_counter()
        self._training.hold(child.shared)
        architecture = self._space.parse(child.architecture)
        metric = self.score(architecture, child)
        with torch.no_grad():
            parameters = sum(tensor.numel() for tensor in self.network.tensors_of(architecture).values())
        seconds = time.perf_counter() - started
        return Evaluation({self.metric_name: metric, "parameters": parameters, "seconds": seconds})
