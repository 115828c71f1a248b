"""Which metric counts and what its reward is, in configs of today and of 0.1."""

import pytest

from nas_cluster.config import JobConfig
from nas_cluster.config.loading import apply_overrides
from nas_cluster.config.rewards import objective_name, todays
from nas_cluster.core.errors import ConfigError
from nas_cluster.core.evaluation import Evaluation
from nas_cluster.core.reward import Objective, Reward
from nas_cluster.core.task import Task
from nas_cluster.datasets.digits import Digits
from nas_cluster.estimators import Estimator
from nas_cluster.estimators.train import Train

SPACE = {"kind": "layerwise_cnn", "layers": 3}
TEXT = {"dataset": "python_docs", "space": {"kind": "enas_recurrent", "nodes": 3}}


def job(**changes):
    data = {
        "name": "demo",
        "space": SPACE,
        "strategy": "reinforce",
        "estimator": "train",
        "budget": {"max_children": 9},
    }
    return JobConfig.from_dict({**data, **changes})


def refused(**changes):
    with pytest.raises(ConfigError) as caught:
        job(**changes)
    return str(caught.value)


def test_the_estimator_says_which_metric_is_its_own():
    assert (job().objective, job().reward_rule) == (Objective("accuracy", "max"), Reward())
    text = job(**TEXT, estimator="shared_language_model")
    assert (text.objective, text.reward_rule) == (Objective("perplexity", "min"), Reward(kind="inverse", scale=80))
    assert job(**TEXT, estimator="train_language_model").reward_rule == Reward(kind="inverse_square")


def test_the_job_says_which_one_counts():
    failures = {"reward": -10}
    config = job(objectives={"latency": "min"}, reward="cubed", failures=failures)
    assert config.objective == Objective("latency", "min")
    assert config.judge(Evaluation({"accuracy": 0.5, "latency": 2.0})).reward == -8.0
    other = job(objectives={"latency": "min"}, failures=failures)
    assert other.reward_rule == Reward(), "a default is for the estimator's own metric"
    assert objective_name(config.to_dict()) == "latency"
    assert objective_name(job().to_dict()) == "accuracy"
    assert objective_name({"estimator": {"kind": "not_here:Mine"}}) == "metric"
    assert JobConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"objectives": {"accuracy": "max", "latency": "min"}}, "objectives: 2 metrics, exactly one can count today"),
        ({"objectives": {}}, "objectives: 0 metrics, exactly one can count today"),
        ({"objectives": {"Top-5": "max"}}, "objectives: 'Top-5' is no name of a metric"),
        ({"objectives": {"accuracy": "up"}}, "objectives.accuracy: input should be 'max' or 'min'"),
        ({"reward": "cubes"}, "did you mean 'cubed'"),
        ({"reward": "inverse"}, "reward: 'inverse' falls with the metric, and 'accuracy' is to be maximised"),
        ({"reward": {"kind": "cubed", "scale": 3}}, "scale is for inverse and inverse_square"),
        ({"reward": "no_such_module:f"}, "cannot import no_such_module"),
        ({"reward": "math:squrt"}, "math has no function 'squrt'; did you mean 'sqrt'"),
        (
            {"reward": "identity", "estimator": {"kind": "train", "reward": "accuracy_cubed"}},
            "estimator.reward: is said in the section",
        ),
        ({"estimator": {"kind": "train", "reward": "accurate"}}, "estimator.reward: unknown key"),
        ({"estimator": {"kind": "train", "reward": [1]}}, "estimator.reward: unknown key"),
        ({"retrain": {"kind": "train", "reward": {"a": 1}}}, "retrain.reward: unknown key"),
        (
            {"finalize": [{"name": "a", "estimator": {"kind": "train", "reward": [1]}}]},
            "finalize.0.estimator.reward: unknown key",
        ),
        (
            {"reward": "cubed", "estimator": {"kind": "train", "reward": "accuracy"}},
            "estimator.reward: is said in the section",
        ),
        (
            {"estimator": {"kind": "train", "metric": "max_of_last_5", "counts": "last"}},
            "estimator.metric: 'max_of_last_5', and counts: 'last'; both say which epoch counts",
        ),
        (
            {"estimator": {"kind": "train", "metric": "mean"}},
            "estimator.metric: one of last, best, max_of_last_5, got 'mean'; it is called `counts` today",
        ),
        ({"retrain": {"kind": "train", "metric": [1]}}, "retrain.metric: one of last"),
        (
            {"finalize": [{"name": "a", "estimator": {"kind": "train", "metric": "mean"}}]},
            "finalize.0.estimator.metric: one of last",
        ),
        ({"objectives": {"test_accuracy": "max"}}, "'test_accuracy' is measured on the test set, which a search never"),
        ({"failures": {"reward": 1e31}}, "failures.reward: input should be less than or equal to 1000"),
        ({"reward": ".math:sqrt"}, "reward '.math:sqrt': '.math' is no name of a module"),
        ({"reward": ":sqrt"}, "'' is no name of a module"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(changes, words):
    text = refused(**changes)
    assert words in text
    assert len(text.splitlines()) == 1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"estimator": {"kind": "train", "reward": "accuracy_cubed"}}, {"reward": "cubed"}),
        ({"estimator": {"kind": "train", "reward": "accuracy"}}, {}),
        (
            {"estimator": {"kind": "train", "metric": "best"}},
            {"estimator": {"kind": "train", "counts": "best"}},
        ),
        ({"reward": "identity", "estimator": {"kind": "train", "reward": "accuracy"}}, {"reward": "identity"}),
        (
            {**TEXT, "estimator": {"kind": "train_language_model", "metric": "best", "reward": "inverse_perplexity"}},
            {**TEXT, "estimator": {"kind": "train_language_model", "counts": "best"}, "reward": "inverse"},
        ),
        (
            {**TEXT, "estimator": {"kind": "shared_language_model", "reward_scale": 4}},
            {**TEXT, "estimator": "shared_language_model", "reward": {"kind": "inverse", "scale": 4}},
        ),
        (
            {**TEXT, "estimator": {"kind": "train_language_model", "reward_scale": 80}},
            {**TEXT, "estimator": "train_language_model"},
        ),
        (
            {
                "estimator": {"kind": "train", "reward": "accuracy_cubed"},
                "retrain": {"kind": "train", "reward": "accuracy", "metric": "best"},
                "finalize": [{"name": "winner", "estimator": {"kind": "train", "reward": "accuracy"}}],
            },
            {
                "reward": "cubed",
                "retrain": {"kind": "train", "counts": "best"},
                "finalize": [{"name": "winner", "estimator": "train"}],
            },
        ),
    ],
)
def test_configs_of_0_1_are_read(old, new):
    read = job(**old)
    assert read == job(**new)
    read.check_continues(job(**new))


def test_what_overrides_a_recorded_config_of_0_1_need_not_contradict_its_old_words():
    recorded = job().to_dict() | {"estimator": {"kind": "train", "metric": "best", "reward": "accuracy"}}
    read = todays(recorded)
    assert read == job().to_dict() | {"estimator": {"kind": "train", "counts": "best"}}
    changed = JobConfig.from_dict(apply_overrides(read, ["reward=cubed", "estimator.counts=last"]))
    assert (changed.reward_rule.kind, changed.estimator.counts) == ("cubed", "last")


def test_a_recorded_default_may_be_said_aloud():
    job(reward="identity").check_continues(job())
    job(objectives={"accuracy": "max"}).check_continues(job())
    with pytest.raises(ConfigError, match=r"reward.*: the run has"):
        job(reward="cubed").check_continues(job())
    with pytest.raises(ConfigError, match=r"objectives.*: the run has"):
        job(objectives={"loss": "max"}).check_continues(job())


def test_a_stage_ranks_by_the_jobs_reward_or_by_its_own_estimators_default():
    stage = {"name": "winner", "estimator": {"kind": "train_language_model"}}
    for reward, expected in ((None, Reward(kind="inverse_square")), ("inverse", Reward(kind="inverse"))):
        config = job(**TEXT, estimator="shared_language_model", reward=reward, finalize=[stage])
        assert config.for_stage(config.finalize[0]).reward_rule == expected


class Mine(Train):
    """Somebody's own estimator, with a setting of that name."""

    reward: str = "accuracy_cubed"


class Old(Train):
    """Somebody's estimator for 0.1."""

    def reward_of(self, metric):
        return metric


def test_somebodys_own_estimator_keeps_its_settings_and_is_told_what_nobody_calls():
    config = job(estimator={"kind": f"{__name__}:Mine", "reward": "x"})
    assert (config.estimator.reward, config.reward) == ("x", None)
    assert "nobody calls its reward_of any more" in refused(estimator={"kind": f"{__name__}:Old"})


def test_a_failed_child_must_not_be_the_best():
    words = (
        "failures.reward: rewards of a minimised metric ('loss', reward identity) are negative, so 0 for a failed child"
        " would be the best; set it below the worst that you expect"
    )
    assert refused(objectives={"loss": "min"}) == f"config: {words}"
    assert "('loss', reward cubed)" in refused(objectives={"loss": "min"}, reward="cubed")
    job(objectives={"loss": "min"}, failures={"reward": -10})
    job(objectives={"loss": "min"}, reward="inverse")


def test_nor_a_failed_training_of_an_estimator_with_an_objective_of_its_own():
    text = {**TEXT, "reward": "cubed", "estimator": "simulated"}
    one = "train_language_model"
    assert "('perplexity', reward cubed)" in refused(**text, retrain=one)
    twice = refused(**text, retrain=one, finalize=[{"name": "winner", "estimator": one}])
    assert len(twice.splitlines()) == 1
    assert "('perplexity', reward cubed)" in refused(**text, finalize=[{"name": "winner", "estimator": one}])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def f(:\n", "invalid syntax"),
        ("import os\n\nraise TypeError('what\\never')\n", "TypeError: what ever"),
        ("import sys\nsys.exit(3)\n", "SystemExit: 3"),
        ("import no_such_module\n", "No module named 'no_such_module'"),
    ],
)
@pytest.mark.parametrize("section", ["reward", "estimator"])
def test_a_module_that_breaks_when_it_is_imported_is_refused_in_one_line(tmp_path, monkeypatch, section, text, words):
    path = tmp_path / f"broken_{section}.py"
    path.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    said = refused(**{section: f"broken_{section}:Mine"})
    assert f"cannot import broken_{section}: " in said
    assert words in said
    assert len(said.splitlines()) == 1
    line = {"invalid syntax": 1, "TypeError: what ever": 3, "SystemExit: 3": 2}.get(words)
    assert line is None or f"({path}:{line})" in said


class NeverOpen(Estimator):
    """Without `open`."""


class Nothing(Task):
    """Without `__str__`."""

    word = "nothing"

    def run_example(self, model, batch=1):
        return ()


class OfNothing(Digits):
    """Its task cannot be made."""

    task_type = Nothing


class BringsNothing(Train):
    """Neither can this one."""

    uses_data = False

    def child_task(self, task):
        return Nothing()


def test_a_class_that_lacks_a_method_is_refused_in_one_line():
    lacking = "class NeverOpen does not define open"
    assert refused(estimator=f"{__name__}:NeverOpen").endswith(lacking)
    assert len(refused(retrain=f"{__name__}:NeverOpen").splitlines()) == 1
    said = refused(dataset=f"{__name__}:OfNothing")
    assert said.endswith("cannot be made: class Nothing does not define __str__")
    assert len(said.splitlines()) == 1
    assert "estimator: the task of" in (said := refused(estimator=f"{__name__}:BringsNothing"))
    assert "Nothing" in said
    assert len(said.splitlines()) == 1
