"""Phases: stretches of a search in which all workers together train what their children share.

Weight sharing (ENAS) alternates them with the controller's updates; a hypernetwork (SMASH) has them all before.
Shapes: S steps of a phase, M architectures of a step.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

from nas_cluster.core.decisions import Tokens

__all__ = ["PhaseOrder", "PhaseResult", "PhaseSchedule", "SharedState"]


@dataclass(frozen=True)
class PhaseSchedule:
    """phases: how many in all. updates: controller updates between two of them; 0: all come before the first update.
    minibatches: of one phase, M to a step. per_step: M; None: as many as there are workers. sample: whose architectures
    are trained, the present policy's or uniformly random ones."""

    phases: int
    updates: int
    minibatches: int
    per_step: int | None = None
    sample: Literal["policy", "random"] = "policy"

    def due(self, update: int) -> int:
        """How many phases must be over before the children of `update` are scored."""
        return self.phases if self.updates == 0 else min(self.phases, 1 + update // self.updates)


@dataclass(frozen=True)
class SharedState:
    """The shared tensors after a phase (0: the first), in a file that every worker can read."""

    phase: int
    path: str
    sha256: str


@dataclass(frozen=True)
class PhaseOrder:
    """What one worker is told: train phase `phase`, starting from `parent`; None: from freshly initialised tensors.

    tokens: (S, M) architectures. rank, world, rendezvous: this worker's place in the group, and HOST:PORT where rank 0
    listens. target: the file that rank 0 writes the tensors to.
    """

    phase: int
    tokens: tuple[tuple[Tokens, ...], ...]
    parent: SharedState | None
    target: str
    rank: int = 0
    world: int = 1
    rendezvous: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain data for a pipe."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Inverse of `to_json`."""
        tokens = tuple(tuple(tuple(one) for one in step) for step in data["tokens"])
        parent = None if data["parent"] is None else SharedState(**data["parent"])
        return cls(**{**data, "tokens": tokens, "parent": parent})


@dataclass(frozen=True)
class PhaseResult:
    """What a worker says when a phase is over.

    loss: mean over the phase's steps. digest: of all shared tensors, equal in all workers. sha256: of rank 0's file.
    """

    loss: float
    digest: str
    seconds: float
    sha256: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain data for a pipe or the journal."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Inverse of `to_json`."""
        return cls(**data)
