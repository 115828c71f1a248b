"""SMASH's search around the best."""

import numpy as np
import pytest

from nas_cluster.core.decisions import Decision, DecisionSpec
from nas_cluster.spaces.memory_bank import MemoryBank
from nas_cluster.strategies.perturb import Perturb

SPEC = DecisionSpec([Decision(f"choice_{i}", "choice", 5, "choice") for i in range(40)])
NO_WEIGHTS = np.zeros(0, np.float32)


def test_parents_of_the_three_parts():
    """The best of the random children is perturbed `perturbed` times, whatever comes of it; then every better child,
    and only a better one, is the parent of the next."""
    strategy = Perturb(random=3, perturbed=2)
    state, parents = strategy.initial_state(), []
    for number, reward in enumerate([0.1, 0.5, 0.5, 0.9, 0.7, 0.9, 0.95, 0.2]):
        state = strategy.observe(state, [(number,)], [reward])
        parents.append(state["parent"][0][0])
    assert parents == [0, 1, 1, 1, 3, 3, 6, 6]
    assert state == {"seen": 8, "parent": [[6], 0.95], "best": [[6], 0.95]}


def test_a_minibatch_is_counted_child_by_child():
    strategy = Perturb(random=3, perturbed=2)
    tokens, rewards = [(i,) for i in range(8)], [0.1, 0.5, 0.5, 0.9, 0.7, 0.9, 0.95, 0.2]
    one_by_one = strategy.initial_state()
    for child, reward in zip(tokens, rewards, strict=True):
        one_by_one = strategy.observe(one_by_one, [child], [reward])
    assert strategy.observe(strategy.initial_state(), tokens, rewards) == one_by_one


@pytest.mark.parametrize("probability", [0.05, 0.5])
def test_each_decision_is_drawn_anew_with_the_probability(probability):
    strategy = Perturb(random=1, probability=probability)
    parent = SPEC.random(np.random.default_rng(0))
    state = strategy.observe(strategy.initial_state(), [parent], [1.0])
    children = strategy.proposer(SPEC).propose(NO_WEIGHTS, state, SPEC, 200, seed=1).tokens
    differ = np.mean([[a != b for a, b in zip(child, parent, strict=True)] for child in children])
    assert differ == pytest.approx(probability * 4 / 5, rel=0.15)


def test_random_children_come_from_the_space_and_perturbed_ones_fit_it():
    space = MemoryBank(unit=4, max_units=4, width=2, depth=3, groups=(1, 2), max_ops=3)
    spec, strategy = space.decisions(), Perturb(random=2)
    proposer, state = strategy.proposer(spec), strategy.initial_state()
    first = proposer.propose(NO_WEIGHTS, state, spec, 2, seed=3)
    assert first.log_probs == (None, None), "the sampler's distribution has no simple probability"
    state = strategy.observe(state, first.tokens, [0.2, 0.6])
    for tokens in proposer.propose(NO_WEIGHTS, state, spec, 10, seed=4).tokens:
        assert space.encode(space.decode(tokens)) == tokens


def test_it_climbs_where_chance_does_not():
    """A sum of 40 choices: 100 random, 100 around the best, 300 of the chain, against 500 random, in five seeds."""

    def reward(tokens):
        return sum(tokens) / 160

    for seed in range(5):
        strategy = Perturb(random=100, perturbed=100)
        state, proposer = strategy.initial_state(), strategy.proposer(SPEC)
        for step in range(500):
            (child,) = proposer.propose(NO_WEIGHTS, state, SPEC, 1, seed=1000 * seed + step).tokens
            state = strategy.observe(state, [child], [reward(child)])
        rng = np.random.default_rng(seed)
        chance = max(reward(SPEC.random(rng)) for _ in range(500))
        assert state["best"][1] > chance + 0.15
