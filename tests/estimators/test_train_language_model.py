"""Language models as children: rewards of the papers, the test text, what `plan` says, a whole search."""

import pytest
import torch
from text_space import TextSpace

from nas_cluster import JobConfig
from nas_cluster.core.errors import ChildTooLarge, ConfigError, DataError
from nas_cluster.core.evaluation import Child, ChildId
from nas_cluster.core.reward import Objective
from nas_cluster.datasets.python_docs import PythonDocs
from nas_cluster.estimators import WorkerContext
from nas_cluster.estimators.shared_language_model import SharedLanguageModel
from nas_cluster.estimators.train_language_model import TrainLanguageModel
from nas_cluster.plan import make_plan
from nas_cluster.training.text import TextStore

SMALL = {"epochs": 2, "batch_size": 4, "sequence_length": 10, "validation_tokens": 300}
DATA = PythonDocs(limit=500)
JOB = {
    "name": "text",
    "dataset": {"kind": "python_docs", "limit": 500},
    "space": "text_space:TextSpace",
    "strategy": "random",
    "estimator": {"kind": "train_language_model", **SMALL},
    "budget": {"max_children": 4},
}


def child_of(token):
    architecture = TextSpace().decode((token,))
    return Child(ChildId(0, 0, 0), 0, (token,), architecture.to_json(), "", 7)


def test_a_perplexity_is_minimised_and_its_reward_is_the_papers():
    """Oracle F-A7: 80 / 80^2."""
    assert TrainLanguageModel().objective == Objective("perplexity", "min")
    assert TrainLanguageModel.default_reward.of(80.0, "min") == pytest.approx(0.0125)
    assert SharedLanguageModel.default_reward.of(160.0, "min") == pytest.approx(0.5)


def test_which_epoch_counts():
    curve = [90.0, 70.0, 75.0]
    assert TrainLanguageModel(counts="last").score(curve) == 75.0
    assert TrainLanguageModel(counts="best").score(curve) == 70.0


@pytest.mark.parametrize("test", [False, True])
def test_the_test_text_is_read_once_and_only_when_asked(test, monkeypatch):
    asked = []
    windows = TextStore.test_windows
    monkeypatch.setattr(TextStore, "test_windows", lambda store: asked.append(1) or windows(store))
    evaluator = TrainLanguageModel(**SMALL).open(WorkerContext(TextSpace(), DATA, seed=0, test=test))
    evaluation = evaluator.evaluate(child_of(0))
    assert len(asked) == int(test)
    assert ("test_perplexity" in evaluation.metrics) == test
    assert evaluation.details["tokens_per_second"] > 0
    V = len(DATA.load().vocabulary)
    assert evaluation.parameters == 2 * 8 * V + V + 4 * (2 * 8 * 8 + 2 * 8)


def test_a_child_that_is_too_large_is_refused_before_memory_is_touched(monkeypatch):
    trainer = TrainLanguageModel(**SMALL).open(WorkerContext(TextSpace(), DATA, seed=0, max_parameters=1000))
    monkeypatch.setattr(torch, "manual_seed", None)  # what comes after the check
    with pytest.raises(ChildTooLarge, match=r"parameters, 1,000 allowed"):
        trainer.evaluate(child_of(1))


def test_a_text_shorter_than_a_window_is_said_when_the_worker_starts():
    settings = TrainLanguageModel(batch_size=20, sequence_length=35)
    with pytest.raises(DataError, match="the training text has 500 tokens, too short for one window"):
        settings.open(WorkerContext(TextSpace(), DATA, seed=0))


def test_plan_counts_tokens():
    plan = make_plan(JobConfig.from_dict(JOB | {"topology": {"children_per_replica": 2}}))
    V = len(DATA.load().vocabulary)
    assert plan["dataset"] == {"kind": "python_docs", "task": f"text over {V} tokens", "training_tokens": 500}
    for child in plan["first_children"]:
        assert child["forward_flops"] >= 2 * 8 * V  # the decoder's at least
    flops = sum(child["forward_flops"] for child in plan["first_children"]) / 2
    passes = 2 * (3 * (12 * 4 * 10) + 300)  # 2 epochs; 12 windows of 4 x 10 trained on, 300 tokens measured
    assert plan["cost"]["operations_per_child"] == pytest.approx(passes * flops)
    with pytest.raises(DataError, match="too short for one window"):
        make_plan(JobConfig.from_dict(JOB | {"estimator": {**JOB["estimator"], "sequence_length": 200}}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": "digits"}, "estimator: 'train_language_model' is for text, dataset 'digits' is images"),
        ({"estimator": "train"}, "estimator: 'train' is for images, dataset 'python_docs' is text"),
        ({"space": "layerwise_cnn"}, "space: 'layerwise_cnn' is for images, dataset 'python_docs' is text"),
    ],
)
def test_text_and_images_do_not_mix(changes, message):
    with pytest.raises(ConfigError, match=message):
        JobConfig.from_dict(JOB | changes)
