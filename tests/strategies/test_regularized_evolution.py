"""Regularized evolution: tournaments, one-decision mutation, ageing."""

import numpy as np
import pytest

from nas_cluster.strategies.regularized_evolution import RegularizedEvolution
from nas_cluster.testing.controllers import tiny_spec

NOTHING = np.zeros(0, np.float32)
SPEC = tiny_spec(4)


def propose(strategy, members, count=200, seed=0, spec=SPEC):
    state = strategy.observe(strategy.initial_state(), [m for m, _ in members], [r for _, r in members])
    return strategy.proposer(spec).propose(NOTHING, state, spec, count, seed).tokens


def differences(a, b):
    return sum(x != y for x, y in zip(a, b, strict=True))


def members(rewards, spec=SPEC):
    rng = np.random.default_rng(0)
    return [(spec.random(rng), reward) for reward in rewards]


def test_until_the_population_is_full_children_are_random():
    strategy = RegularizedEvolution(population=20, tournament=20)
    young = members([0.5] * 19)
    drawn = propose(strategy, young)
    assert len(set(drawn)) > 150
    assert np.mean([min(differences(child, m) for m, _ in young) for child in drawn]) > 2


def test_children_are_the_best_of_the_tournament_with_one_decision_changed():
    strategy = RegularizedEvolution(population=5, tournament=200)
    known = members([0.1, 0.9, 0.3, 0.2, 0.4])
    drawn = propose(strategy, known)
    assert all(differences(child, known[1][0]) == 1 for child in drawn)
    changed = {step for child in drawn for step, (x, y) in enumerate(zip(child, known[1][0], strict=True)) if x != y}
    assert changed == {step for step, decision in enumerate(SPEC) if decision.cardinality > 1}


def test_a_tournament_of_one_draws_parents_uniformly_and_a_larger_one_prefers_the_good():
    known = members([0.1, 0.2, 0.3, 0.4])

    def parents(tournament):
        drawn = propose(RegularizedEvolution(population=4, tournament=tournament), known, count=2000)
        return np.bincount([int(np.argmin([differences(c, m) for m, _ in known])) for c in drawn], minlength=4) / 2000

    assert parents(1) == pytest.approx([0.25] * 4, abs=0.05)
    # with replacement: the best of two is the k-th of four with probability (k^2 - (k-1)^2) / 16
    assert parents(2) == pytest.approx([1 / 16, 3 / 16, 5 / 16, 7 / 16], abs=0.05)


def test_the_oldest_leave_however_good_they_are():
    strategy = RegularizedEvolution(population=3, tournament=50)
    known = members([0.9, 0.1, 0.2, 0.3])
    state = strategy.observe(strategy.initial_state(), [m for m, _ in known], [r for _, r in known])
    assert state == {"population": [[list(tokens), reward] for tokens, reward in known[1:]]}
    child = strategy.proposer(SPEC).propose(NOTHING, state, SPEC, 1, 0).tokens[0]
    assert differences(child, known[3][0]) == 1


def test_members_of_an_earlier_depth_are_no_parents():
    strategy = RegularizedEvolution(population=4, tournament=50)
    shallow = members([0.9] * 3, tiny_spec(2))
    assert len(set(propose(strategy, shallow + members([0.1])))) > 150, "too few that fit: random ones of the new depth"
    deep = members([0.1, 0.2, 0.3, 0.4])
    assert all(differences(child, deep[3][0]) == 1 for child in propose(strategy, shallow + deep))


def test_in_a_space_of_one_architecture_there_is_nothing_to_mutate():
    spec = tiny_spec(0)
    assert propose(RegularizedEvolution(population=1), [((0,), 0.5)], count=2, spec=spec) == ((0,), (0,))
