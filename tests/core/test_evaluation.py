"""Metrics and rewards: what is a metric, what becomes of one."""

import json
import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from nas_cluster.cluster.children.evaluators import checked
from nas_cluster.core.evaluation import Evaluation, Report
from nas_cluster.core.metrics import BadMetric, check_name, plain_value, plain_values
from nas_cluster.core.reward import Objective, Reward, judge


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (0.5, 0.5),
        (3, 3),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.array([0.25]), 0.25),
        (torch.tensor(0.5), 0.5),
        (torch.tensor([3]), 3),
        (Fraction(1, 4), 0.25),
        (2**63 - 1, 2**63 - 1),
        (2**63, 2.0**63),
        (np.uint64(2**63), 2.0**63),
        (-(10**305), -1e305),
    ],
)
def test_numbers_of_every_library_become_plain_ones(value, plain):
    found = plain_value("accuracy", value)
    assert (found, type(found)) == (plain, type(plain))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (True, "bool True"),
        (np.bool_(True), "bool"),
        (torch.tensor(True), "Tensor"),
        (None, "is None"),
        ("0.5", "str '0.5'"),
        (torch.zeros(3), r"Tensor of shape \(3,\)"),
        (np.zeros((2, 2)), r"ndarray of shape \(2, 2\)"),
        (1j, "complex"),
        (10**400, "too large"),
        (-(10**400), "too large"),
    ],
)
def test_what_is_no_number_is_refused_by_name(value, reason):
    with pytest.raises(BadMetric, match=f"metric 'accuracy' is .*{reason}|{reason}") as caught:
        plain_values({"accuracy": value})
    assert "'accuracy'" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["Accuracy", "top-5", "5_top", "", "a" * 65, 3, "a\n", "é"])
def test_a_name_is_a_word(name):
    with pytest.raises(BadMetric, match="is no name of a metric"):
        check_name(name)
    assert check_name("top_5_accuracy") == "top_5_accuracy"


def test_a_hundred_metrics_are_kept():
    assert len(plain_values({f"m{i}": i for i in range(100)})) == 100
    with pytest.raises(BadMetric, match="101 metrics"):
        plain_values({f"m{i}": i for i in range(101)})


def test_seconds_and_parameters_are_metrics():
    evaluation = Evaluation({"accuracy": 0.5, "seconds": 2.0, "parameters": 7})
    assert (evaluation.seconds, evaluation.parameters) == (2.0, 7)
    assert (Evaluation().seconds, Evaluation().parameters) == (0.0, None)
    assert Evaluation.failure("exit", "m", 3.0).seconds == 3.0
    assert Evaluation.from_json(json.loads(json.dumps(evaluation.to_json()))) == evaluation
    report = Report(1, {"loss": 2.0}, 5.0)
    assert Report.from_json(json.loads(json.dumps(report.to_json()))) == report


def check(metrics, objective="accuracy", **more):
    return checked(Evaluation(metrics, **more), own="accuracy", objective=objective)


def test_an_answer_leaves_the_worker_as_plain_numbers():
    found = check({"accuracy": np.float32(0.5), "flops": torch.tensor(12), "seconds": 1.0})
    assert found == Evaluation({"accuracy": 0.5, "flops": 12, "seconds": 1.0})
    json.dumps(found.to_json(), allow_nan=False)


@pytest.mark.parametrize(
    ("metrics", "objective", "cause", "words"),
    [
        ({"accuracy": math.nan, "seconds": 2.0}, "accuracy", "diverged", "the accuracy is nan"),
        ({"accuracy": math.nan, "latency": 1.0, "seconds": 2.0}, "latency", "diverged", "the accuracy is nan"),
        ({"accuracy": 0.5, "latency": math.inf, "seconds": 2.0}, "latency", "diverged", "the latency is inf"),
        ({"accuracy": 0.5, "loss": math.inf, "seconds": 2.0}, "accuracy", "bad_result", "metric 'loss' is inf"),
        (
            {"accuracy": 0.5, "seconds": 2.0},
            "latency",
            "bad_result",
            "no metric 'latency', which counts; it has accuracy",
        ),
        ({"accuracy": "high"}, "accuracy", "bad_result", "metric 'accuracy' is str 'high'"),
        ({"Accuracy": 0.5}, "accuracy", "bad_result", "'Accuracy' is no name"),
        ([0.5], "accuracy", "bad_result", "a mapping of names to numbers is needed"),
        ({"accuracy": 0.5, "parameters": 1e308, "seconds": 2.0}, "accuracy", "bad_result", "a whole number from 0 to"),
        ({"accuracy": 0.5, "parameters": 2**63}, "accuracy", "bad_result", "'parameters' is 9.22"),
        ({"accuracy": 0.5, "parameters": -1}, "accuracy", "bad_result", "'parameters' is -1"),
        ({"accuracy": 0.5, "parameters": 1.5}, "accuracy", "bad_result", "'parameters' is 1.5"),
        ({"accuracy": 0.5, "seconds": -1}, "accuracy", "bad_result", "'seconds' is -1, time cannot be negative"),
    ],
)
def test_a_defect_is_a_failed_child_and_one_clear_line(metrics, objective, cause, words):
    found = check(metrics, objective)
    assert (found.status, found.cause) == ("failed", cause)
    assert words in found.message
    if "seconds" in metrics and metrics["seconds"] > 0:
        assert found.seconds == 2.0


def test_details_that_are_no_data_and_answers_that_are_no_evaluations_are_refused():
    assert check({"accuracy": 0.5}, details={"x": object()}).cause == "bad_result"
    assert checked({"accuracy": 0.5}, own="accuracy", objective="accuracy").cause == "bad_result"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"status": "failed", "cause": "weird", "message": "why"}, "cause 'weird'; known causes: exception, "),
        ({"status": "failed"}, "cause None; known causes"),
        ({"status": "failed", "cause": ["exit"]}, "cause ['exit']"),
        ({"cause": "exit"}, "cause 'exit'; what is ok has none"),
        ({"status": "great"}, "status 'great'; it is 'ok' or 'failed'"),
        ({"message": 3}, "message must be a text"),
        ({"details": [1]}, "details a mapping"),
    ],
)
def test_words_that_the_journal_does_not_know_are_a_bad_result(more, words):
    found = check({"accuracy": 0.5, "seconds": 2.0}, **more)
    assert (found.status, found.cause, found.seconds) == ("failed", "bad_result", 2.0)
    assert words in found.message


def test_half_a_character_in_a_message_is_no_more_when_it_is_recorded():
    assert Evaluation.failure("exit", "a\udc80").message == "a?"
    assert check({}, status="failed", cause="exit", message="a\udc80").message == "a?"


@pytest.mark.parametrize(
    ("reward", "metric", "direction", "value"),
    [
        ("identity", 0.9, "max", 0.9),
        ("identity", 3.0, "min", -3.0),
        ("cubed", 0.9, "max", 0.9**3),
        ("cubed", 2.0, "min", -8.0),
        ("inverse", 160.0, "min", 0.5),
        ("inverse_square", 80.0, "min", 80 / 80.0**2),
        ({"kind": "inverse_square", "scale": 3}, 2.0, "min", 0.75),
        ("math:sqrt", 4.0, "max", 2.0),
    ],
)
def test_rewards_by_name(reward, metric, direction, value):
    """Oracle F-A7: 80 / 80^2."""
    rule = Reward.model_validate(reward)
    assert rule.of(metric, direction) == value
    assert Reward.model_validate(rule.model_dump(mode="json")) == rule


def leave(metric):
    raise GeneratorExit


@pytest.mark.parametrize(
    ("kind", "metric", "words"),
    [
        ("math:sqrt", -1.0, "reward 'math:sqrt' of -1.0: ValueError"),
        ("math:exp", 1e6, "OverflowError"),
        ("builtins:str", 0.5, "'reward' is str '0.5'"),
        ("inverse", 0.0, "ZeroDivisionError"),
        ("math:isnan", None, "TypeError"),
        ("identity", 1e31, "is -1e+31, beyond 1e+30"),
        ("cubed", 2**62, "beyond 1e+30"),
        ("sys:exit", 1.0, "SystemExit: 1.0"),
        (f"{__name__}:leave", 1.0, "GeneratorExit"),
    ],
)
def test_a_reward_that_cannot_be_computed_fails_the_child_and_not_the_run(kind, metric, words):
    evaluation = Evaluation({"accuracy": metric, "seconds": 2.0})
    judged = judge(evaluation, Objective("accuracy", "min"), Reward(kind=kind))
    assert (judged.evaluation.cause, judged.metric, judged.reward) == ("bad_reward", None, None)
    assert words in judged.evaluation.message
    assert judged.evaluation.seconds == 2.0


def test_ctrl_c_is_no_reward():
    with pytest.raises(KeyboardInterrupt):
        judge(Evaluation({"accuracy": 0.5}), Objective("accuracy", "max"), Reward(kind=f"{__name__}:interrupt"))


def interrupt(metric):
    raise KeyboardInterrupt


def test_what_counts_is_a_float_though_it_was_measured_as_an_integer():
    judged = judge(Evaluation({"flops": 3, "test_flops": 4}), Objective("flops", "max"), Reward())
    assert (judged.metric, judged.test) == (3.0, 4.0)
    assert (type(judged.metric), type(judged.test)) == (float, float)


def test_a_failed_child_has_no_reward():
    judged = judge(Evaluation.failure("exit", "m"), Objective("accuracy", "max"), Reward())
    assert (judged.metric, judged.reward, judged.test) == (None, None, None)
    tested = judge(Evaluation({"accuracy": 0.5, "test_accuracy": 0.4}), Objective("accuracy", "max"), Reward())
    assert (tested.metric, tested.reward, tested.test) == (0.5, 0.5, 0.4)
