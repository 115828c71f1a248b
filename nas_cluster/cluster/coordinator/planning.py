"""A minibatch as the journal holds it: the rows of its children before they are scored, and what they teach after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from nas_cluster.cluster.children.pool import Scored
from nas_cluster.cluster.messages import BatchRequest, BatchResult
from nas_cluster.config import JobConfig
from nas_cluster.core.evaluation import Child, ChildId
from nas_cluster.core.seeds import stream
from nas_cluster.storage.rows import Arm, BatchRow, ChildRow
from nas_cluster.strategies import Proposal

__all__ = ["batch_of", "cached", "differing", "planned", "scored", "to_learn_from"]


def batch_of(request: BatchRequest, *, at: float) -> BatchRow:
    """The row of a minibatch before any of its children is scored."""
    return BatchRow(
        replica=request.replica,
        update=request.update,
        base_version=request.base_version,
        controller_hash=request.controller_hash,
        planned_at=at,
    )


def planned(config: JobConfig, request: BatchRequest, index: int, *, at: float) -> ChildRow:
    """The row of a child that was never planned before. A control's tokens are drawn here, not by the replica.

    at: when it is planned, in seconds since 1970.
    """
    number = request.admission.first_number + index
    space = config.space.at(request.admission.first_number)
    proposal, control = request.proposal, config.control
    arm: Arm = "control" if control is not None and control.takes(number) else "search"
    tokens, log_prob, entropy = proposal.tokens[index], proposal.log_probs[index], proposal.entropies[index]
    if arm == "control":
        tokens = space.random(stream(config.seed, "control", number))
        spec = space.decisions()
        log_prob, entropy = (-spec.log_size, spec.log_size) if spec.uniform else (None, None)
    architecture = space.decode(tokens)
    if config.cache:
        architecture = space.canonical(architecture)
    key = space.key(architecture)
    child_id = ChildId(request.replica, request.update, index)
    child = Child(
        child_id=child_id,
        number=number,
        tokens=tokens,
        architecture=architecture.to_json(),
        key=key,
        seed=Child.seed_of(config.seed, child_id, key, cached=config.cache),
    )
    steps = proposal.step_log_probs if arm == "search" else None
    return ChildRow(
        child,
        log_prob,
        entropy,
        planned_at=at,
        step_log_probs=None if steps is None else steps[index],
        arm=arm,
    )


def scored(config: JobConfig, row: ChildRow, result: Scored) -> ChildRow:
    """The row of a child that a worker has scored; a failed one has the configured reward."""
    judged = config.judge(result.evaluation)
    return replace(
        row,
        evaluation=judged.evaluation,
        metric=judged.metric,
        reward=config.failures.reward if judged.reward is None else judged.reward,
        started_at=result.started_at,
        finished_at=result.finished_at,
        worker=result.worker,
        attempts=result.attempts,
    )


def cached(row: ChildRow, earlier: ChildRow, *, at: float) -> ChildRow:
    """The row of a child that is answered by an earlier one of equal architecture, at this time."""
    return replace(
        row,
        evaluation=earlier.evaluation,
        metric=earlier.metric,
        reward=earlier.reward,
        finished_at=at,
        cached_from=str(earlier.child.child_id),
    )


def differing(request: BatchRequest, recorded: Mapping[int, ChildRow]) -> list[int]:
    """Children that were planned with other tokens than this request proposes: other software may sample others."""
    proposed = request.proposal.tokens
    return [i for i, row in recorded.items() if row.arm == "search" and row.child.tokens != proposed[i]]


def to_learn_from(rows: Sequence[ChildRow], *, learn: bool) -> BatchResult:
    """What there is to learn from these children, all of them done: nothing from controls.

    learn: whether their rewards may reach the controller.
    """
    assert all(row.done for row in rows)
    learning = [row for row in rows if row.arm == "search"]
    steps = tuple(row.step_log_probs for row in learning if row.step_log_probs is not None)
    proposal = Proposal(
        tokens=tuple(row.child.tokens for row in learning),
        log_probs=tuple(row.log_prob for row in learning),
        entropies=tuple(row.entropy for row in learning),
        step_log_probs=steps or None,
    )
    rewards = tuple(row.reward for row in learning if row.reward is not None)
    return BatchResult(proposal, rewards, learn, rows[0].child.first_number)
