"""PPO: the clipped surrogate in closed form, and REINFORCE as the case of one epoch without clipping."""

import json
import math

import pytest
import torch

from nas_cluster.cluster.learners.partition import Layout
from nas_cluster.strategies._minibatch import Minibatch
from nas_cluster.strategies.ppo import PPO
from nas_cluster.strategies.reinforce import Reinforce
from nas_cluster.testing.controllers import tiny_spec

SPEC = tiny_spec()
REWARDS = torch.tensor([0.9, 0.1, 0.5, 0.3], dtype=torch.float64)


def network_and_sample():
    network = PPO().controller.build(SPEC, 0).double()
    return network, scored(network, network.sample(SPEC, 4, torch.Generator().manual_seed(0)))


def scored(network, tokens_BT):
    with torch.no_grad():
        return tokens_BT, network.scores(SPEC, tokens_BT)


def gradient(strategy, network, sample):
    """Gradient of the strategy's loss for a sample whose log-probabilities may be those of other weights."""
    tokens_BT, then = sample
    now = network.scores(SPEC, tokens_BT)
    batch = Minibatch(now.log_probs_BT, now.entropies_B, REWARDS, 0.4, then.log_probs_B, then.log_probs_BT)
    parameters = [p for _, p in network.named_parameters()]
    return torch.cat([g.ravel() for g in torch.autograd.grad(strategy.loss(batch), parameters)])


@pytest.mark.parametrize("ratio", ["sequence", "token"])
def test_at_the_weights_that_sampled_the_gradient_is_reinforces(ratio):
    network, sample = network_and_sample()
    ours = gradient(PPO(ratio=ratio, entropy_weight=0.01), network, sample)
    theirs = gradient(Reinforce(entropy_weight=0.01), network, sample)
    assert theirs.abs().max() > 1e-3
    assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-14)


def test_at_other_weights_each_childs_gradient_is_weighted_by_its_ratio():
    network, sample = network_and_sample()
    tokens_BT, then = sample
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.02 * torch.randn(p.shape, dtype=p.dtype, generator=torch.Generator().manual_seed(1)))
    log_probs_B = network.scores(SPEC, tokens_BT).log_probs_B
    ratios_B = (log_probs_B.detach() - then.log_probs_B).exp()
    assert 0.005 < float((ratios_B - 1).abs().max()) < 0.9
    parameters = [p for _, p in network.named_parameters()]
    expected = torch.autograd.grad(-(ratios_B * (REWARDS - 0.4) * log_probs_B).mean(), parameters)
    expected = torch.cat([g.ravel() for g in expected])
    ours = gradient(PPO(clip=0.999, entropy_weight=0.0), network, sample)
    assert torch.allclose(ours, expected, rtol=1e-10, atol=1e-14)


# ratio, advantage -> surrogate and its derivative by the new log-probability, at clip 0.2
CASES = [
    (1.0, 2.0, 2.0, 2.0),
    (1.1, 2.0, 2.2, 2.2),
    (1.5, 2.0, 2.4, 0.0),  # good and already likelier: no further
    (0.5, 2.0, 1.0, 1.0),  # good and less likely: all of it
    (0.5, -2.0, -1.6, 0.0),  # bad and already less likely: no further
    (1.5, -2.0, -3.0, -3.0),  # bad and likelier: all of it
]


@pytest.mark.parametrize("ratio,advantage,surrogate,derivative", CASES)
def test_the_clipped_surrogate(ratio, advantage, surrogate, derivative):
    """A sequence of two decisions of which one has moved: both kinds of ratio see the same move."""
    for kind, still in (("sequence", 0.0), ("token", advantage)):
        new_BT = torch.tensor([[math.log(0.3 * ratio), math.log(0.2)]], dtype=torch.float64, requires_grad=True)
        old_BT = torch.tensor([[math.log(0.3), math.log(0.2)]], dtype=torch.float64)
        rewards_B = torch.tensor([advantage + 0.5], dtype=torch.float64)
        batch = Minibatch(new_BT, torch.zeros(1, dtype=torch.float64), rewards_B, 0.5, old_BT.sum(1), old_BT)
        strategy = PPO(ratio=kind)
        loss = strategy.loss(batch)
        loss.backward()
        assert -float(loss.detach()) == pytest.approx(surrogate + still)
        assert -float(new_BT.grad[0, 0]) == pytest.approx(derivative)
        share = float(abs(ratio - 1) > 0.2) / (1 if kind == "sequence" else 2)
        assert strategy.watch(batch) == {"clipped": share}


def test_a_ratio_without_bounds_stays_finite():
    new_BT = torch.tensor([[-1.0]], requires_grad=True)
    old_BT = torch.tensor([[-200.0]])
    batch = Minibatch(new_BT, torch.zeros(1), torch.tensor([0.0]), 0.5, old_BT.sum(1), old_BT)
    loss = PPO().loss(batch)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(new_BT.grad).all()


def test_log_probabilities_survive_the_journals_json_bit_by_bit():
    strategy = PPO(ratio="token")
    tensors = strategy.initial_weights(SPEC, 1)
    weights = Layout.of(tensors).flatten(tensors)
    proposal = strategy.proposer(SPEC).propose(weights, {"baseline": None}, SPEC, 5, seed=3)
    assert [len(row) for row in proposal.step_log_probs] == [len(SPEC)] * 5
    back = json.loads(json.dumps(proposal.step_log_probs))
    assert torch.equal(torch.tensor(back), torch.tensor(proposal.step_log_probs))
    assert PPO().proposer(SPEC).propose(weights, {"baseline": None}, SPEC, 5, seed=3).step_log_probs is None


def test_the_defaults_are_nasnets():
    strategy = PPO()
    controller = strategy.controller
    assert (controller.layers, controller.hidden_size, controller.init_range) == (1, 100, 0.1)
    assert strategy.optimizer.learning_rate == 0.00035
    assert (strategy.baseline_decay, strategy.entropy_weight, strategy.clip) == (0.95, 1e-5, 0.2)
    assert PPO(epochs=7).learning_epochs == 7
