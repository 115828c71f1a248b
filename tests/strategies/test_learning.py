"""Strategies learn, and credit goes to the right child: closed-form rewards, ten seeds, against random search."""

from functools import lru_cache

import numpy as np
import pytest

from nas_cluster.cluster.learners.partition import Layout
from nas_cluster.core.seeds import derive, stream
from nas_cluster.estimators.simulated import agreement
from nas_cluster.spaces.layerwise_cnn import LayerwiseCNN
from nas_cluster.strategies.ppo import PPO
from nas_cluster.strategies.random import Random
from nas_cluster.strategies.regularized_evolution import RegularizedEvolution
from nas_cluster.strategies.reinforce import Reinforce

SPEC = LayerwiseCNN(layers=2).decisions()
SMALL = {"kind": "lstm", "layers": 1, "hidden_size": 35, "init_range": 0.1}
# strategy, children per minibatch, children
LEARNERS = {
    "reinforce": (Reinforce(learning_rate=0.01), 8, 1200),
    "ppo": (PPO(learning_rate=0.01, epochs=3, controller=SMALL), 20, 600),
    "evolution": (RegularizedEvolution(population=50, tournament=10), 8, 1000),
}


def search(strategy, minibatch, children, seed, shuffle=False):
    """Rewards of the children, in order."""
    tensors = strategy.initial_weights(SPEC, derive(seed, "controller"))
    weights = Layout.of(tensors).flatten(tensors)
    optimizer, state = strategy.optimizer, strategy.initial_state()
    moments = optimizer.init(len(weights))
    proposer = strategy.proposer(SPEC)
    rewards = []
    for update in range(children // minibatch):
        proposal = proposer.propose(weights, state, SPEC, minibatch, derive(seed, "sample", update))
        earned = [agreement(SPEC, tokens, seed) for tokens in proposal.tokens]
        rewards += earned
        credited = earned
        if shuffle:  # other children's rewards: a permutation inside the minibatch would still credit the minibatch
            others = rewards[-16 * minibatch : -minibatch] or [0.5]
            credited = list(stream(seed, "shuffle", update).choice(others, minibatch))
        for _ in range(strategy.learning_epochs):
            gradient = proposer.gradient(weights, state, SPEC, proposal, credited)
            optimizer.apply(moments, weights, gradient.vector)
        state = strategy.observe(state, proposal.tokens, credited)
    return np.array(rewards)


def end(rewards):
    """Mean over the last tenth."""
    return rewards[-len(rewards) // 10 :].mean()


@lru_cache
def by_chance(seed):
    return search(Random(), 8, 1200, seed).mean()


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("learner", LEARNERS)
def test_it_beats_random(learner, seed):
    assert end(search(*LEARNERS[learner], seed)) > by_chance(seed) + 0.05


@pytest.mark.slow
@pytest.mark.parametrize("learner", LEARNERS)
def test_with_rewards_shuffled_among_the_children_it_does_not_learn(learner):
    learned = [end(search(*LEARNERS[learner], seed)) - by_chance(seed) for seed in range(4)]
    shuffled = [end(search(*LEARNERS[learner], seed, shuffle=True)) - by_chance(seed) for seed in range(4)]
    assert abs(np.mean(shuffled)) < 0.25 * np.mean(learned)
