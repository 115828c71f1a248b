import math

import numpy as np
import pytest

from nas_cluster.core.decisions import Decision, DecisionSpec
from nas_cluster.core.seeds import derive, stream
from nas_cluster.testing.controllers import tiny_spec


def test_size_and_log_size_count_every_token_sequence():
    spec = tiny_spec(3)
    assert spec.size == (3 * 1 * 1) * (3 * 2 * 2) * (3 * 3 * 4)
    assert spec.log_size == pytest.approx(math.log(spec.size))


def test_random_tokens_are_uniform_and_legal():
    spec = DecisionSpec([Decision("a", "choice", 4, "a"), Decision("b", "skips", 1, "b", (0,))])
    rng = np.random.default_rng(0)
    counts = np.zeros((4, 2))
    for _ in range(4000):
        counts[spec.random(rng)] += 1
    assert counts.min() > 500 * 0.8
    assert counts.max() < 500 * 1.2


def test_every_mutation_changes_one_decision_to_any_other_value():
    spec = tiny_spec(3)
    rng = np.random.default_rng(0)
    tokens = spec.random(rng)
    reached = {spec.mutate(tokens, rng) for _ in range(3000)}
    assert tokens not in reached
    expected = sum(d.options if d.head == "skips" else d.options - 1 for d in spec)
    assert len(reached) == expected


@pytest.mark.parametrize(
    "decisions",
    [
        [Decision("a", "choice", 2, "a"), Decision("a", "choice", 2, "a")],
        [Decision("a", "pointer", 1, "a", (0,))],
        [Decision("a", "anchor", 1, "a"), Decision("b", "pointer", 2, "b", (0,))],
        [Decision("a", "choice", 0, "a")],
        [Decision("a", "anchor", 2, "a")],
        [Decision("a", "choice", 2, "a", labels=("one",))],
    ],
)
def test_a_wrong_spec_is_refused(decisions):
    with pytest.raises(ValueError, match=r"[a-z]"):
        DecisionSpec(decisions)


def test_streams_are_independent_of_each_other():
    assert derive(0, "sample", 1, 2) != derive(0, "sample", 12)
    assert derive(0, "a") == derive(0, "a")
    assert not np.array_equal(stream(0, "a").random(8), stream(1, "a").random(8))
