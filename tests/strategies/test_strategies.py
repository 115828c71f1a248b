"""Every strategy on disk; the REINFORCE gradient; Adam against torch's."""

import numpy as np
import pytest
import torch

from nas_cluster.cluster.learners.partition import Layout
from nas_cluster.core.component import find_component, known_kinds
from nas_cluster.strategies import Strategy
from nas_cluster.strategies._adam import Adam
from nas_cluster.strategies.perturb import Perturb
from nas_cluster.strategies.ppo import PPO
from nas_cluster.strategies.regularized_evolution import RegularizedEvolution
from nas_cluster.strategies.reinforce import Reinforce
from nas_cluster.testing import check_strategy
from nas_cluster.testing.controllers import tiny_spec


@pytest.mark.parametrize("kind", known_kinds(Strategy))
def test_conformance(kind):
    check_strategy(find_component(Strategy, kind)())


@pytest.mark.parametrize(
    "strategy",
    [PPO(ratio="token"), RegularizedEvolution(population=3, tournament=2), Perturb(random=4, perturbed=4)],
    ids=lambda strategy: strategy.kind,
)
def test_conformance_with_other_settings(strategy):
    check_strategy(strategy)


def test_adam_equals_torchs():
    rng = np.random.default_rng(0)
    weights = rng.normal(size=50).astype(np.float32)
    settings = Adam(learning_rate=0.003)
    state, ours = settings.init(50), weights.copy()
    theirs = torch.nn.Parameter(torch.from_numpy(weights.copy()))
    optimizer = torch.optim.Adam([theirs], lr=0.003)
    for _ in range(30):
        gradient = rng.normal(size=50).astype(np.float32)
        settings.apply(state, ours, gradient)
        theirs.grad = torch.from_numpy(gradient)
        optimizer.step()
    assert np.allclose(ours, theirs.detach().numpy(), rtol=1e-5, atol=1e-7)


def test_the_gradient_is_that_of_the_paper():
    """(1/m) sum over children of (R - b) times the gradient of the log-probability, negated for descent."""
    spec = tiny_spec()
    strategy = Reinforce(entropy_weight=0.0)
    tensors = strategy.initial_weights(spec, 1)
    weights = Layout.of(tensors).flatten(tensors)
    proposer = strategy.proposer(spec)
    state = {"baseline": 0.3}
    proposal = proposer.propose(weights, state, spec, 4, seed=0)
    rewards = [0.9, 0.1, 0.5, 0.3]
    got = proposer.gradient(weights, state, spec, proposal, rewards).vector
    network = strategy.controller.build(spec, 1)
    expected = np.zeros_like(got)
    for tokens, reward in zip(proposal.tokens, rewards, strict=True):
        network.zero_grad()
        network.scores(spec, torch.tensor([tokens])).log_probs_B.sum().backward()
        grads = np.concatenate([p.grad.numpy().ravel() for p in network.parameters()])
        expected -= (reward - 0.3) / 4 * grads
    assert np.allclose(got, expected, atol=1e-6)


def test_the_baseline_is_an_average_of_earlier_rewards_only():
    strategy = Reinforce(baseline_decay=0.9)
    state = strategy.initial_state()
    assert state["baseline"] is None
    state = strategy.observe(state, [()], [0.5])
    assert state["baseline"] == 0.5
    state = strategy.observe(state, [(), ()], [1.0, 0.0])
    assert state["baseline"] == pytest.approx((0.5 + 0.1 * 0.5) * 0.9)


def test_clipping_bounds_the_gradient():
    spec = tiny_spec()
    strategy = Reinforce(gradient_clip=1e-3)
    tensors = strategy.initial_weights(spec, 1)
    weights = Layout.of(tensors).flatten(tensors)
    proposer = strategy.proposer(spec)
    proposal = proposer.propose(weights, {"baseline": 0.0}, spec, 2, seed=0)
    gradient = proposer.gradient(weights, {"baseline": 0.0}, spec, proposal, [5.0, 7.0])
    assert np.linalg.norm(gradient.vector) == pytest.approx(1e-3, rel=1e-4)
    assert gradient.scalars["gradient_norm"] > 1e-3
