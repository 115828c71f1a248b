"""What is known of a child: the request that describes it and the evaluation that comes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

from nas_cluster.core.phases import SharedState
from nas_cluster.core.seeds import derive

__all__ = ["CAUSES", "TEST", "Child", "ChildId", "Evaluation", "Report", "Status", "writable"]

Status = Literal["ok", "failed"]

CAUSES = {
    "exception": "the child raised an exception",
    "invalid": "the space cannot build this architecture for this task",
    "too_large": "more parameters than failures.max_parameters",
    "diverged": "the loss or the metric is not finite",
    "out_of_memory": "it needed more memory than it may use",
    "exit": "the child's process ended itself",
    "segfault": "the child's process crashed (SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT)",
    "killed": "the child's process was killed from outside",
    "timeout": "it ran longer than failures.time_limit",
    "no_progress": "it made no step for failures.stall_limit",
    "bad_result": "the estimator returned something that is not an evaluation, or not the metric that counts",
    "bad_reward": "no reward could be computed from its metric",
    "worker_lost": "the worker or its node disappeared",
}
"""Every cause of failure the journal records, with its meaning."""

TEST = "test_"
"""Begins the name of a metric that was measured on the test set."""


@dataclass(frozen=True, order=True)
class ChildId:
    """Unique in a run: which replica sampled it, in which of its updates, at which place of the minibatch."""

    replica: int
    update: int
    index: int

    def __str__(self) -> str:
        return f"r{self.replica}-u{self.update}-i{self.index}"


@dataclass(frozen=True)
class Child:
    """One architecture to be scored. Plain data: it travels to a worker as JSON.

    `seed` fixes everything random in its training, so a child that is run again elsewhere is the same child.
    """

    child_id: ChildId
    number: int
    """Place in the run, from 0: what a depth schedule or a budget counts."""
    tokens: tuple[int, ...]
    architecture: dict[str, Any]
    key: str
    seed: int
    estimator: dict[str, Any] | None = None
    """The estimator's settings, when they are this child's own (a point of a grid) and not the job's."""
    shared: SharedState | None = None
    """What it is scored with, when children share tensors."""

    @property
    def first_number(self) -> int:
        """Number of its minibatch's first child: where a growing space (`SearchSpace.at`) was taken for all of them."""
        return self.number - self.child_id.index

    def to_json(self) -> dict[str, Any]:
        """Plain data for a pipe."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Inverse of `to_json`."""
        tokens = tuple(data["tokens"])
        shared = None if data["shared"] is None else SharedState(**data["shared"])
        return cls(**{**data, "child_id": ChildId(**data["child_id"]), "tokens": tokens, "shared": shared})

    @staticmethod
    def seed_of(run_seed: int, child_id: ChildId, key: str, *, cached: bool) -> int:
        """With the cache on, equal architectures train with equal seeds: a cached answer is the answer."""
        return derive(run_seed, "child", key) if cached else derive(run_seed, "child", str(child_id))


@dataclass(frozen=True)
class Evaluation:
    """What an estimator measured. Which of its metrics counts, and what its reward is, is the job's business.

    metrics: finite numbers by name (`core.metrics` says which names); `seconds` is wall time in the worker,
    `parameters` are the child's trainable ones, `test_NAME` was measured on the test set.
    details: JSON-able extras that are no numbers (dtype used, notes).
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    status: Status = "ok"
    cause: str | None = None
    message: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Wall time in the worker, 0 where nobody measured it."""
        return self.metrics.get("seconds", 0.0)

    @property
    def parameters(self) -> int | None:
        """Trainable parameters of the child, where they were counted."""
        count = self.metrics.get("parameters")
        return None if count is None else int(count)

    @classmethod
    def failure(cls, cause: str, message: str, seconds: float = 0.0) -> Self:
        """A failed child. `cause` is a word of CAUSES."""
        if cause not in CAUSES:
            raise ValueError(f"unknown cause {cause!r}")
        return cls(metrics={"seconds": seconds}, status="failed", cause=cause, message=writable(message)[:2000])

    def to_json(self) -> dict[str, Any]:
        """Plain data for a pipe or the journal."""
        return {**vars(self), "metrics": dict(self.metrics)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Inverse of `to_json`."""
        return cls(**data)


def writable(text: str) -> str:
    """`text` without the halves of characters that a file's name may bring, which no journal takes."""
    return text.encode("utf-8", "replace").decode("utf-8")


@dataclass(frozen=True)
class Report:
    """Metrics of a child while it trains: what a learning curve is made of.

    step: an epoch, from 1, or whatever the child counts in. time: in seconds since 1970.
    """

    step: int
    metrics: Mapping[str, float]
    time: float

    def to_json(self) -> dict[str, Any]:
        """Plain data for a pipe."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Inverse of `to_json`."""
        return cls(**data)
