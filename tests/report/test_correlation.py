"""Rank correlation between the search's score and training alone: against scipy's own and by hand."""

import pytest

from nas_cluster.core.evaluation import Evaluation
from nas_cluster.report.correlation import correlation_of, correlation_section
from nas_cluster.storage.rows import TrainingRow


def rows(scores, alone, reward=lambda metric: metric):
    def row(stage, index, metric):
        evaluation = Evaluation({"accuracy": metric, "seconds": 1.0})
        return TrainingRow(
            stage, f"random-{index}", {}, 1, 0, {}, evaluation, metric, None if metric is None else reward(metric)
        )

    found = [row("correlate_scores", index, metric) for index, metric in enumerate(scores)]
    return [*found, *(row("correlate", index, metric) for index, metric in alone.items())]


def test_the_coefficients_are_those_of_the_ranks():
    found = correlation_of(rows([0.1, 0.2, 0.3, 0.4, 0.5], {0: 0.5, 1: 0.6, 2: 0.7, 3: 0.9, 4: 0.8}))
    assert found.spearman == pytest.approx(1 - 6 * 2 / (5 * 24))  # one pair of neighbours swapped
    assert found.kendall == pytest.approx((9 - 1) / 10)
    assert found.significant


def test_perplexities_are_compared_by_their_rewards():
    """Lower is better in both: the order agrees."""
    found = correlation_of(rows([9.0, 8.0, 7.0, 6.0], {0: 90.0, 1: 80.0, 2: 70.0, 3: 60.0}, lambda ppl: 1 / ppl))
    assert found.spearman == pytest.approx(1)
    assert found.scores == (9.0, 8.0, 7.0, 6.0)


@pytest.mark.parametrize("alone", [{0: 0.9, 1: 0.2, 2: 0.8, 3: 0.1, 4: 0.5}, {0: 0.5, 1: 0.4, 2: 0.3, 3: 0.2, 4: 0.1}])
def test_an_order_that_chance_explains_is_a_warning(alone):
    section = correlation_section(rows([0.1, 0.2, 0.3, 0.4, 0.5], alone), {"correlate": {"children": 5}}, "accuracy")
    assert not section["significant"]
    assert "WARNING" in section["finding"]
    assert "<svg" in section["chart"]


def test_equal_scores_order_nothing():
    found = correlation_of(rows([0.1] * 5, {0: 0.5, 1: 0.4, 2: 0.3, 3: 0.2, 4: 0.1}))
    assert (found.spearman, found.kendall, found.significant) == (0.0, 0.0, False)


def test_failed_trainings_are_left_out_and_too_few_say_nothing():
    assert correlation_of(rows([0.1, 0.2, 0.3, 0.4, None], {0: 0.1, 1: 0.2, 2: None, 3: 0.4, 4: 0.5})) is None
    assert correlation_section([], {"correlate": {"children": 5}}, "accuracy") is None
    assert correlation_section(rows([0.1] * 5, dict.fromkeys(range(5), 0.1)), {}, "accuracy") is None
