"""What estimators that train each child from scratch have in common."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from nas_cluster.core.errors import ChildTooLarge
from nas_cluster.core.evaluation import Child, Evaluation
from nas_cluster.core.task import Task
from nas_cluster.estimators.base import WorkerContext

if TYPE_CHECKING:
    from torch import nn

__all__ = ["WarmTrainer"]


class WarmTrainer(ABC):
    """The evaluator of one worker process: builds a child and trains it. A subclass loads the data and gives `train`.

    task: what children are built for.
    """

    def __init__(self, context: WorkerContext, task: Task) -> None:
        self.context = context
        self._task = task

    @abstractmethod
    def train(self, model: nn.Module, child: Child) -> tuple[dict[str, float], dict[str, Any]]:
        """Train the fresh model in place: its metrics, and details for the journal.

        Where the context says `test`, `test_NAME` is its own metric on the test set.
        """

    def evaluate(self, child: Child) -> Evaluation:
        """Build, train and score one child.

        Raises ChildTooLarge before any memory is touched, MemoryError when the host's memory is not enough.
        """
        try:
            return self._evaluate(child)
        except RuntimeError as error:
            if "DefaultCPUAllocator" in str(error):  # torch has no class of its own for this, as it has on CUDA
                raise MemoryError(str(error).partition("DefaultCPUAllocator: ")[2]) from error
            raise

    def _evaluate(self, child: Child) -> Evaluation:
        import torch

        started = time.perf_counter()
        most = self.context.max_parameters
        if most is not None:
            with torch.device("meta"):
                parameters = _count(self._build(child))
            if parameters > most:
                raise ChildTooLarge(f"{parameters:,} parameters, {most:,} allowed")
        torch.manual_seed(child.seed)
        model = self._build(child)
        metrics, details = self.train(model, child)
        seconds = time.perf_counter() - started
        return Evaluation({**metrics, "parameters": _count(model), "seconds": seconds}, details=details)

    def _build(self, child: Child) -> nn.Module:
        space = self.context.space.at(child.first_number)
        return space.build_child(space.parse(child.architecture), self._task)


def _count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
