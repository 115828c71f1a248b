"""The rows of a run's journal, as the rest of the package sees them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Literal

from nas_cluster.core.decisions import Tokens
from nas_cluster.core.evaluation import Child, Evaluation
from nas_cluster.core.phases import PhaseResult, SharedState

__all__ = [
    "Arm",
    "BatchRow",
    "ChildRow",
    "EventRow",
    "FailureRow",
    "PhaseRow",
    "SessionKind",
    "SessionRow",
    "SnapshotRow",
    "TrainingRow",
]

SessionKind = Literal["search", "finalize", "retrain"]
"""What a session does: the search, the stages that its config says, or the training that a reader asked for."""

Arm = Literal["search", "control"]
"""Who chose a child: the strategy, or chance for comparison (a control, from which nothing is learned)."""


@dataclass(frozen=True)
class BatchRow:
    """One minibatch of one replica. `applied_at` is None until the parameter servers have taken its last gradient.

    learning_epochs: gradients that they have taken.
    staleness: updates the servers had applied since the weights were pulled; the largest of its gradients.
    verdict: applied | down_weighted | dropped | void (all children are controls); of its last gradient.
    scalars: loss, entropy, baseline, gradient norm of its last gradient.
    """

    replica: int
    update: int
    base_version: int
    controller_hash: str
    planned_at: float
    learning_epochs: int = 0
    applied_at: float | None = None
    staleness: int | None = None
    verdict: str | None = None
    scalars: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ChildRow:
    """One child. `evaluation` and everything after it is None until the row is committed as done.

    log_prob, entropy: under the policy that sampled it, None where there was none; step_log_probs: by decision, where
    the strategy needs them again.
    """

    child: Child
    log_prob: float | None
    entropy: float | None
    planned_at: float
    step_log_probs: tuple[float, ...] | None = None
    arm: Arm = "search"
    evaluation: Evaluation | None = None
    metric: float | None = None
    """The one of its metrics that counts; None of a failed child."""
    reward: float | None = None
    started_at: float | None = None
    """When a worker took it; None for an answer from the cache."""
    finished_at: float | None = None
    worker: str | None = None
    attempts: int = 0
    cached_from: str | None = None
    """child_id of the child whose result this is, when the cache answered."""

    @property
    def reported_by(self) -> str:
        """The child whose reports are its learning curve: of an answer from the cache, the one that was trained."""
        return self.cached_from or str(self.child.child_id)

    @property
    def done(self) -> bool:
        """Committed: it counts, whatever happens next."""
        return self.evaluation is not None

    @property
    def ok(self) -> bool:
        """Done and not failed."""
        return self.evaluation is not None and self.evaluation.status == "ok"


@dataclass(frozen=True)
class EventRow:
    """Something that happened to the run: a restart, a fault, a changed config, a duplicate result."""

    time: float
    kind: str
    detail: dict[str, Any]


@dataclass(frozen=True)
class FailureRow:
    """A cause of failures: of how many children, and what the last of them said, when."""

    cause: str
    count: int
    message: str
    last_at: float

    @property
    def line(self) -> str:
        """What it said in one line, cut."""
        return " ".join(self.message.split())[:300]


@dataclass(frozen=True)
class SessionRow:
    """One process lifetime of the run. `active_seconds` is what the time budget charges: downtime is free."""

    term: int
    """Of all sessions of a run the newest has the largest; every commit checks that it is still the writer's."""
    kind: SessionKind
    machine: str
    pid: int
    started_at: float
    active_seconds: float
    ended: str | None
    """done | stopped | interrupted | failed, or None when the process was lost."""


@dataclass(frozen=True)
class SnapshotRow:
    """One immutable snapshot file, checked by its SHA-256 when it is loaded."""

    version: int
    path: str
    sha256: str
    created_at: float


@dataclass(frozen=True)
class PhaseRow:
    """One phase in which all workers trained what children share. `result` is None until it is over.

    tokens: (steps, architectures of a step): what was trained. path: the file of the shared tensors after it.
    """

    phase: int
    tokens: tuple[tuple[Tokens, ...], ...]
    planned_at: float
    path: str | None = None
    result: PhaseResult | None = None
    finished_at: float | None = None

    @property
    def state(self) -> SharedState | None:
        """The shared tensors after it."""
        if self.path is None or self.result is None:
            return None
        return SharedState(self.phase, self.path, self.result.sha256)


@dataclass(frozen=True)
class TrainingRow:
    """One training of a chosen architecture with one seed, in a stage after the search.

    source: a child_id, or the name of a published architecture. settings: estimator, dataset, scale, test, point (of a
    grid). rank: before this training. metric: the one that counts. test_metric: the same, measured once, at its end.
    """

    stage: str
    source: str
    architecture: dict[str, Any]
    rank: int
    seed: int
    settings: dict[str, Any]
    evaluation: Evaluation | None = None
    metric: float | None = None
    reward: float | None = None
    test_metric: float | None = None
    finished_at: float | None = None

    @property
    def key(self) -> tuple[str, str, int, str]:
        """What makes it this training and no other."""
        return self.stage, self.source, self.seed, json.dumps(self.settings, sort_keys=True)

    @property
    def name(self) -> str:
        """Short, and no other training's of its stage: what its reports are found by."""
        digest = hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()
        return f"{self.source}:{self.seed}:{digest[:12]}"
