"""The controller learns, and credit goes to the right child: 2,000 children of a closed-form reward, ten seeds."""

import numpy as np
import pytest

from nas_cluster.cluster.partition import Layout
from nas_cluster.core.seeds import derive, stream
from nas_cluster.estimators.simulated import agreement
from nas_cluster.spaces.layerwise_cnn import LayerwiseCNN
from nas_cluster.strategies.random import Random
from nas_cluster.strategies.reinforce import Reinforce

CHILDREN, MINIBATCH = 2000, 8
SPEC = LayerwiseCNN(layers=2).decisions()


def search(strategy, seed, shuffle=False):
    """Rewards of 2,000 children, in order."""
    tensors = strategy.initial_weights(SPEC, derive(seed, "controller"))
    weights = Layout.of(tensors).flatten(tensors)
    optimizer, state = strategy.optimizer, strategy.initial_state()
    moments = optimizer.init(len(weights))
    proposer = strategy.proposer(SPEC)
    rewards = []
    for update in range(CHILDREN // MINIBATCH):
        proposal = proposer.propose(weights, state, SPEC, MINIBATCH, derive(seed, "sample", update))
        earned = [agreement(SPEC, tokens, seed) for tokens in proposal.tokens]
        rewards += earned
        credited = earned
        if shuffle:  # other children's rewards: a permutation inside the minibatch would still credit the minibatch
            others = rewards[-16 * MINIBATCH : -MINIBATCH] or [0.5]
            credited = list(stream(seed, "shuffle", update).choice(others, MINIBATCH))
        gradient = proposer.gradient(weights, state, SPEC, proposal, credited)
        optimizer.apply(moments, weights, gradient.vector)
        state = strategy.observe(state, proposal.tokens, credited)
    return np.array(rewards)


LEARNER = Reinforce(learning_rate=0.01)


@pytest.mark.parametrize("seed", range(10))
def test_reinforce_beats_random(seed):
    last = slice(-CHILDREN // 10, None)
    learned = search(LEARNER, seed)[last].mean()
    by_chance = search(Random(), seed)[last].mean()
    assert learned > by_chance + 0.05


@pytest.mark.slow
def test_with_rewards_shuffled_among_the_children_it_does_not_learn():
    last = slice(-CHILDREN // 10, None)
    chance = [search(Random(), seed).mean() for seed in range(4)]
    learned = [search(LEARNER, seed)[last].mean() - chance[seed] for seed in range(4)]
    shuffled = [search(LEARNER, seed, shuffle=True)[last].mean() - chance[seed] for seed in range(4)]
    assert abs(np.mean(shuffled)) < 0.25 * np.mean(learned)
