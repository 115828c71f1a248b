"""What every strategy promises."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from nas_cluster.core.decisions import DecisionSpec
from nas_cluster.strategies import Proposal, Strategy
from nas_cluster.testing.controllers import tiny_spec

__all__ = ["check_strategy"]


def check_strategy(strategy: Strategy, spec: DecisionSpec | None = None) -> None:
    """Determinism, legal tokens, plain state, purity of `observe`, gradients of the right size; a proposal that comes
    back from the journal teaches the same; a deeper spec is searched with the same weights and state."""
    spec = spec or tiny_spec()
    assert strategy.learning_epochs >= 1
    tensors = strategy.initial_weights(spec, 1)
    assert all(np.array_equal(t, strategy.initial_weights(spec, 1)[name]) for name, t in tensors.items())
    flat = np.concatenate([t.ravel() for t in tensors.values()]) if tensors else np.zeros(0, np.float32)
    state = strategy.initial_state()
    assert json.loads(json.dumps(state)) == state, "state must be plain data"
    one, other = strategy.proposer(spec), strategy.proposer(spec)
    for _ in range(3):
        proposal = one.propose(flat, state, spec, 4, seed=7)
        assert proposal == other.propose(flat, state, spec, 4, seed=7), "a proposal depends on its arguments only"
        assert len(proposal.tokens) == len(proposal.log_probs) == len(proposal.entropies) == 4
        for tokens in proposal.tokens:
            spec.check(tokens)
        rewards = [0.1, 0.9, 0.4, 0.4]
        before = flat.copy()
        gradient = one.gradient(flat, state, spec, proposal, rewards)
        assert gradient.vector.dtype == np.float32
        assert gradient.vector.shape == flat.shape, "the gradient has one entry per weight"
        assert np.array_equal(flat, before), "weights are changed by the servers only"
        recorded = _journaled(proposal)
        assert recorded == proposal, "a proposal is plain data"
        assert np.array_equal(gradient.vector, other.gradient(flat, state, spec, recorded, rewards).vector)
        fewer = _first(proposal, 1)
        assert one.gradient(flat, state, spec, fewer, rewards[:1]).vector.shape == flat.shape, "the others are controls"
        kept = json.loads(json.dumps(state))
        following = strategy.observe(state, proposal.tokens, rewards)
        assert state == kept, "observe must not change the state it is given"
        assert json.loads(json.dumps(following)) == following
        state = following
    deeper = tiny_spec(4)
    for tokens in one.propose(flat, state, deeper, 4, seed=8).tokens:
        deeper.check(tokens)


def _journaled(proposal: Proposal) -> Proposal:
    """A proposal as the journal gives it back."""
    fields: dict[str, Any] = json.loads(json.dumps(vars(proposal)))
    steps = fields["step_log_probs"]
    return Proposal(
        tokens=tuple(map(tuple, fields["tokens"])),
        log_probs=tuple(fields["log_probs"]),
        entropies=tuple(fields["entropies"]),
        step_log_probs=None if steps is None else tuple(map(tuple, steps)),
    )


def _first(proposal: Proposal, count: int) -> Proposal:
    fields: dict[str, Any] = {name: rows if rows is None else rows[:count] for name, rows in vars(proposal).items()}
    return Proposal(**fields)
