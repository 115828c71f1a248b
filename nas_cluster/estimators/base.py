"""The interface of a performance estimator."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self, TypeVar

from nas_cluster.core.component import Component
from nas_cluster.core.evaluation import Child, Evaluation
from nas_cluster.core.phases import PhaseOrder, PhaseResult, PhaseSchedule
from nas_cluster.core.reward import Direction, Objective, Reward
from nas_cluster.core.task import ImageTask, Task
from nas_cluster.datasets import Arrays, Dataset, resident
from nas_cluster.spaces import SearchSpace

__all__ = ["AsyncEvaluator", "Estimator", "Evaluator", "SharedEvaluator", "WorkerContext"]


D = TypeVar("D", bound=Arrays)


@dataclass(frozen=True)
class WorkerContext:
    """What a worker process knows for its whole life.

    dataset: the job's, or None where it has none. seed: of the run (the validation split is taken by it). device: "cpu"
    or "cuda". max_parameters: larger children are refused before memory is touched. test: measure on the test set after
    training (retrain), never in a search.
    """

    space: SearchSpace[Any]
    dataset: Dataset | None
    seed: int
    device: str = "cpu"
    max_parameters: int | None = None
    test: bool = False

    def arrays(self, kind: type[D]) -> D:
        """The dataset's arrays, which are of this kind where the estimator understands the dataset's task."""
        assert self.dataset is not None, "a job without a dataset is refused unless its estimator uses none"
        data = resident(self.dataset)
        assert isinstance(data, kind), f"{type(data).__name__} are not {kind.__name__}"
        return data


class Evaluator(Protocol):
    """The warm part of an estimator in one worker process: dataset loaded, device started."""

    def evaluate(self, child: Child) -> Evaluation:
        """Score one child. A ChildError (or any exception) becomes a failed evaluation in the worker."""
        ...


class SharedEvaluator(Evaluator, Protocol):
    """The same for estimators whose children share tensors, which the workers train together in phases.

    A child says with which state it is scored (`Child.shared`): an evaluator that holds another loads that one.
    """

    def train_phase(self, order: PhaseOrder) -> PhaseResult:
        """Train one phase as worker `order.rank` of `order.world`. Raises Diverged when the loss is not finite."""
        ...


class AsyncEvaluator(Protocol):
    """The same for estimators whose children share a process and only wait (a simulation, a table)."""

    async def evaluate(self, child: Child) -> Evaluation:
        """Score one child."""
        ...


class Estimator(Component, ABC):
    """How a child is scored."""

    package: ClassVar[str] = "nas_cluster.estimators"
    word: ClassVar[str] = "estimator"
    uses_data: ClassVar[bool] = True
    """False when children never see the job's dataset, which then need not exist: nothing is trained, or the estimator
    brings data of its own (`child_task`). True: a job without a dataset is refused."""
    understands: ClassVar[tuple[type[Task], ...]] = (ImageTask,)
    """What it can teach children, subclasses included; a config that pairs it with another dataset is refused."""
    metric_name: ClassVar[str] = "accuracy"
    """Its own metric, which every successful evaluation has among its `metrics`, and which counts unless the job's
    `objectives` name another."""
    metric_direction: ClassVar[Direction] = "max"
    """Whether more of it is better, or less."""
    default_reward: ClassVar[Reward] = Reward()
    """How its own metric becomes the reward, unless the job's `reward` says it."""

    @property
    def shares_process(self) -> bool:
        """True when children cost no CPU and cannot crash: they run as coroutines of one worker (`AsyncEvaluator`).
        Otherwise each worker slot has a process of its own, which can be killed."""
        return False

    @abstractmethod
    def open(self, context: WorkerContext) -> Evaluator | AsyncEvaluator:
        """Called once in each worker process; everything slow and shared belongs here."""

    @property
    def objective(self) -> Objective:
        """Its own metric."""
        return Objective(self.metric_name, self.metric_direction)

    def exact(self) -> Self:
        """The same estimator, scoring as exactly as it can: to choose between winners, where a search takes samples."""
        return self

    def check(self, space: SearchSpace[Any]) -> list[str]:
        """Reasons, one line each, why this estimator cannot score children of `space`."""
        return []

    def phases(self, data: Arrays | None) -> PhaseSchedule | None:
        """When the workers train what children share; None: children share nothing. data: None without `uses_data`."""
        return None

    def child_task(self, task: Any) -> Task | None:
        """The task children are built for when the dataset's is `task` (images may be resized first).

        task: None without `uses_data`. An estimator that brings data of its own then gives the task of those, without
        loading them, for a config asks too; one whose children are never built gives None.
        """
        given: Task | None = task
        return given

    def forward_passes(self, data: Arrays | None) -> float:
        """Forward passes of one example (an image, a token) that scoring a child on `data` costs, for estimates.

        data: None without `uses_data`. Raises DataError when `data` cannot be trained on.
        """
        return 0.0
