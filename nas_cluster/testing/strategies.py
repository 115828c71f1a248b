"""What every strategy promises."""

from __future__ import annotations

import json

import numpy as np

from nas_cluster.core.decisions import DecisionSpec
from nas_cluster.strategies import Strategy
from nas_cluster.testing.controllers import tiny_spec

__all__ = ["check_strategy"]


def check_strategy(strategy: Strategy, spec: DecisionSpec | None = None) -> None:
    """Determinism, legal tokens, plain state, purity of `observe`, gradients of the right size."""
    spec = spec or tiny_spec()
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
        assert np.array_equal(gradient.vector, other.gradient(flat, state, spec, proposal, rewards).vector)
        kept = json.loads(json.dumps(state))
        following = strategy.observe(state, proposal.tokens, rewards)
        assert state == kept, "observe must not change the state it is given"
        assert json.loads(json.dumps(following)) == following
        state = following
