"""What the parts say to each other. Plain frozen data: it travels between processes and between tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from nas_cluster.core.errors import NasClusterError
from nas_cluster.core.evaluation import Child, ChildId, Evaluation, Report
from nas_cluster.core.phases import PhaseOrder, PhaseResult
from nas_cluster.strategies import Proposal
from nas_cluster.strategies.base import State, Vector

__all__ = [
    "Admission",
    "Answer",
    "BatchRequest",
    "BatchResult",
    "CoordinatorClient",
    "Outcome",
    "PartLost",
    "Progress",
    "Pulled",
    "Push",
    "Receipt",
    "ReplicaClient",
    "ShardClient",
    "ShardEmpty",
    "ShardState",
    "WorkerClient",
]


class PartLost(NasClusterError):
    """A shard, replica, worker or coordinator is gone (its process or node died)."""


class ShardEmpty(NasClusterError):
    """A shard that holds no weights was asked for them; a restarted shard must be restored first."""


@dataclass(frozen=True)
class Pulled:
    """One shard's answer to a pull: its slice, its version, and (shard 0 only) the strategy's state."""

    weights: Vector
    version: int
    state: State | None


@dataclass(frozen=True)
class Push:
    """One replica's gradient for one shard. A shard knows it by (replica, push_number), one replica's numbers being
    `update * learning_epochs + learning_epoch`.

    gradient: mean over the children that `tokens` and `rewards` list; None, and no children, when all of the
    minibatch are controls: a void push, which keeps the count.
    """

    replica: int
    push_number: int
    base_version: int
    gradient: Vector | None
    tokens: tuple[tuple[int, ...], ...]
    rewards: tuple[float, ...]

    @property
    def void(self) -> bool:
        """Whether nothing is to be learned from it."""
        return self.gradient is None


@dataclass(frozen=True)
class Receipt:
    """What a shard did with a push."""

    version: int
    staleness: int
    verdict: Literal["applied", "down_weighted", "dropped", "void", "duplicate"]


@dataclass(frozen=True)
class ShardState:
    """All of a shard at one version: what a snapshot holds and a restart needs."""

    version: int
    arrays: dict[str, NDArray[Any]]
    meta: dict[str, Any]


@dataclass(frozen=True)
class Admission:
    """Leave to sample `count` children, numbered from `first_number`."""

    first_number: int
    count: int


@dataclass(frozen=True)
class BatchRequest:
    """A replica's minibatch before any child is trained: what the journal records as planned."""

    replica: int
    update: int
    admission: Admission
    base_version: int
    controller_hash: str
    proposal: Proposal


@dataclass(frozen=True)
class BatchResult:
    """The minibatch after its rewards were committed, without the children of the control arm.

    proposal: what the journal holds, which after a crash may be older than what was asked for.
    learn: False for the cut-off last minibatch of a synchronous budget.
    first_number: `Child.first_number` of its children.
    """

    proposal: Proposal
    rewards: tuple[float, ...]
    learn: bool
    first_number: int


@dataclass(frozen=True)
class Answer:
    """What a worker says of a child that is done. reports: those that were not fetched before, as far as it knows."""

    evaluation: Evaluation
    reports: tuple[Report, ...] = ()


@dataclass(frozen=True)
class Progress:
    """How a run stands, for people."""

    children_done: int = 0
    children_failed: int = 0
    children_cached: int = 0
    children_running: int = 0
    children_queued: int = 0
    max_children: int | None = None
    best_reward: float | None = None
    best_child: str | None = None
    mean_reward: float | None = None
    """Of all children that are done, also in earlier sessions."""
    entropy: float | None = None
    baseline: float | None = None
    updates: int = 0
    shard_versions: tuple[int, ...] = ()
    updates_per_second: float = 0.0
    mean_staleness: float = 0.0
    slots_busy: int = 0
    slots: int = 0
    child_seconds: float = 0.0
    """Seconds that children were trained, in all sessions."""
    active_seconds: float = 0.0
    seconds_left: float | None = None
    waits_for: str = ""
    """What it cannot go on without, or not as fast: `3 of 4 workers: {GPU: 1} each`."""
    last_event: str = ""


@dataclass(frozen=True)
class Outcome:
    """How a session of a run ended. ended: done | stopped | interrupted | failed."""

    ended: str
    reason: str
    progress: Progress = field(default_factory=Progress)


class ShardClient(Protocol):
    """A parameter-server shard, here or in another process."""

    async def pull(self, replica: int, push_number: int) -> Pulled: ...
    async def push(self, push: Push) -> Receipt: ...
    async def restore(self, state: ShardState) -> None: ...
    async def halt(self) -> None: ...
    async def versions(self) -> list[int]: ...
    async def snapshot(self, version: int | None) -> ShardState: ...


class CoordinatorClient(Protocol):
    """The single writer of a run, here or in another process."""

    async def admit(self, replica: int, update: int) -> Admission | None: ...
    async def evaluate(self, request: BatchRequest) -> BatchResult | None: ...
    async def recorded(self, replica: int, update: int) -> BatchResult: ...
    async def applied(
        self, replica: int, update: int, learning_epoch: int, receipts: list[Receipt], scalars: dict[str, float]
    ) -> Admission | None: ...
    async def connect(self, shards: list[Any]) -> dict[int, int] | None: ...
    async def initialise(self, weights: Mapping[str, NDArray[np.float32]]) -> dict[int, int]: ...
    async def start(self) -> None: ...
    async def event(self, kind: str, detail: dict[str, Any]) -> None: ...
    async def progress(self) -> Progress: ...
    async def stop(self, reason: str) -> None: ...
    async def hurry(self) -> None: ...
    async def close(self, ended: str) -> Outcome: ...


class ReplicaClient(Protocol):
    """A controller replica, here or in another process."""

    async def initial_weights(self) -> dict[str, NDArray[np.float32]]: ...
    async def run(self, push_number: int) -> None: ...


class WorkerClient(Protocol):
    """A child worker, here or in another process."""

    async def start(self) -> None: ...
    async def evaluate(self, child: Child) -> Answer: ...
    async def reports(self) -> list[tuple[ChildId, Report]]:
        """Wait for reports of children that are still at work; asked again, those given before have arrived."""
        ...

    async def train_phase(self, order: PhaseOrder) -> PhaseResult: ...
    async def rendezvous(self) -> str: ...
    async def close(self) -> None: ...
