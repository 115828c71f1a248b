"""Every estimator on disk."""

from dataclasses import replace

import numpy as np
import pytest
from shared_spaces import PickImages, PickText
from text_space import TextSpace

from nas_cluster.core.component import find_component, known_kinds
from nas_cluster.core.errors import ChildTooLarge
from nas_cluster.core.evaluation import Child, ChildId, Evaluation
from nas_cluster.core.phases import PhaseOrder, SharedState
from nas_cluster.core.reporting import listening
from nas_cluster.core.task import LanguageTask
from nas_cluster.datasets.digits import Digits
from nas_cluster.datasets.python_docs import PythonDocs
from nas_cluster.estimators import Estimator, WorkerContext
from nas_cluster.estimators._sharing import Sharing
from nas_cluster.estimators.hypernetwork import Hypernetwork
from nas_cluster.estimators.simulated import Simulated, agreement
from nas_cluster.estimators.train import Train
from nas_cluster.spaces.enas_micro import ENASMicro
from nas_cluster.spaces.layerwise_cnn import LayerwiseCNN
from nas_cluster.spaces.memory_bank import MemoryBank
from nas_cluster.testing import check_estimator

SMALL = {
    "train": {"epochs": 1, "validation": 0.2, "crop_padding": 1, "flip": False},
    "train_language_model": {"epochs": 1, "validation_tokens": 500},
    "shared_weights": {"epochs": 1, "validation": 0.2, "crop_padding": 1, "flip": False},
    "hypernetwork": {"epochs": 1, "validation": 200, "crop_padding": 1, "flip": False, "precision": "float32"},
    "shared_language_model": {"epochs": 1, "validation_tokens": 5000, "batch_size": 10},
}
SPACE = LayerwiseCNN(layers=2, filters=(4, 8))
BANKS = MemoryBank(
    unit=4, max_units=2, width=2, depth=2, groups=(1, 2), max_ops=2, max_kernel=3, child={"stem_kernel": 3}
)


@pytest.mark.parametrize("kind", known_kinds(Estimator))
def test_conformance(kind):
    estimator = find_component(Estimator, kind)(**SMALL.get(kind, {}))
    sharing = isinstance(estimator, Sharing)
    if LanguageTask in estimator.understands:
        space = PickText() if sharing else TextSpace()
        check_estimator(estimator, WorkerContext(space, PythonDocs(limit=2000), seed=0))
    else:
        space = BANKS if kind == "hypernetwork" else PickImages() if sharing else SPACE
        check_estimator(estimator, WorkerContext(space, Digits(), seed=0))
        assert not estimator.check(space)
    assert bool(estimator.check(SPACE)) == sharing, "children that share no weights are refused"


@pytest.mark.parametrize(
    ("metrics", "words"), [({"loss": 1.0}, "its own metric, 'accuracy'"), ({"accuracy": float("inf")}, "are finite")]
)
def test_an_estimator_without_its_own_finite_metric_does_not_conform(monkeypatch, metrics, words):
    monkeypatch.setattr(Simulated, "result", lambda *arguments: Evaluation(metrics))
    with pytest.raises(AssertionError, match=words):
        check_estimator(Simulated(), WorkerContext(SPACE, Digits(), seed=0))


@pytest.mark.parametrize("kind", ["train", "train_language_model"])
def test_children_that_are_trained_alone_report_each_epoch(kind):
    text = kind == "train_language_model"
    estimator = find_component(Estimator, kind)(**{**SMALL[kind], "epochs": 3})
    space, dataset = (TextSpace(), PythonDocs(limit=2000)) if text else (SPACE, Digits())
    tokens = (0,) * len(space.decisions())
    child = Child(ChildId(0, 0, 0), 0, tokens, space.decode(tokens).to_json(), "", 7)
    reports = []
    with listening(reports.append):
        evaluation = estimator.open(WorkerContext(space, dataset, seed=0)).evaluate(child)
    assert [report.step for report in reports] == [1, 2, 3]
    name = estimator.metric_name
    assert all(report.metrics.keys() == {name, "loss"} for report in reports)
    assert reports[-1].metrics == {key: evaluation.metrics[key] for key in (name, "loss")}


@pytest.mark.parametrize("kind", ["shared_weights", "shared_language_model"])
def test_shared_weights_are_trained_and_scored(kind, tmp_path):
    """Phases teach the shared network: every child is better than with fresh weights, and the file holds it all."""
    text = kind == "shared_language_model"
    settings = {"epochs": 6, "learning_rate": 5.0 if text else 0.1} | ({} if text else {"batch_size": 32})
    estimator = find_component(Estimator, kind)(**{**SMALL[kind], **settings, "score_on": "validation"})
    space, dataset = (PickText(), PythonDocs(limit=20_000)) if text else (PickImages(), Digits())
    context = WorkerContext(space, dataset, seed=0)
    evaluator = estimator.open(context)

    def scores(shared):
        children = [Child(ChildId(0, 0, k), k, (k,), {"operation": k}, "", k, shared=shared) for k in range(3)]
        return [evaluator.evaluate(child).metrics[estimator.metric_name] for child in children]

    schedule = estimator.phases(dataset.load())
    fresh, state = scores(None), None
    for phase in range(settings["epochs"]):
        tokens = tuple(((step % 3,),) for step in range(schedule.minibatches))
        result = evaluator.train_phase(PhaseOrder(phase, tokens, state, str(tmp_path / f"{phase}.safetensors")))
        state = SharedState(phase, str(tmp_path / f"{phase}.safetensors"), result.sha256)
    trained = scores(state)
    better = [b < a if text else b > a for a, b in zip(fresh, trained, strict=True)]
    assert all(better), (fresh, trained)
    evaluator = estimator.open(context)  # as after a crash
    assert scores(state) == trained


def test_a_hypernetwork_is_trained_and_scores(tmp_path):
    """A few epochs on digits: networks that were never trained are far above chance with generated weights, the score
    is the same after a crash, and weight sharing without a generator is refused."""
    assert "generates its children's weights" in Hypernetwork().check(PickImages())[0]
    few = {"epochs": 4, "batch_size": 25, "learning_rate": 0.01, "training_images": 500}
    estimator = Hypernetwork(**{**SMALL["hypernetwork"], **few})
    context = WorkerContext(BANKS, Digits(), seed=0)
    evaluator = estimator.open(context)
    schedule = estimator.phases(Digits().load())
    assert (schedule.sample, schedule.due(0), schedule.due(99)) == ("random", 4, 4)
    rng = np.random.default_rng(0)
    children = []
    for number in range(3):
        tokens = BANKS.random(rng)
        architecture = BANKS.decode(tokens).to_json()
        children.append(Child(ChildId(0, 0, number), number, tokens, architecture, "", number))
    state, losses = None, []
    for phase in range(4):
        tokens = tuple((BANKS.during(phase / 4).random(rng),) for _ in range(schedule.minibatches))
        result = evaluator.train_phase(PhaseOrder(phase, tokens, state, str(tmp_path / f"{phase}.safetensors")))
        state = SharedState(phase, str(tmp_path / f"{phase}.safetensors"), result.sha256)
        losses.append(result.loss)
    scores = [evaluator.evaluate(replace(child, shared=state)).metrics["accuracy"] for child in children]
    assert losses[-1] < 0.8 * losses[0], losses
    assert min(scores) > 0.3, scores
    evaluator = estimator.open(context)
    assert [evaluator.evaluate(replace(child, shared=state)).metrics["accuracy"] for child in children] == scores


def test_agreement_is_one_exactly_at_the_target():
    spec = SPACE.decisions()
    scores = {}
    for first in range(4):
        for second in range(4):
            scores[first, second] = agreement(spec, (first, second, 0, 0, 0, 0, 0, 0), 3)
    assert len(set(scores.values())) > 3
    assert all(0 <= score <= 1 for score in scores.values())


def test_the_same_architecture_scores_the_same_whatever_tokens_stand_for_it():
    """A synchronous search depends on it: which of two equal children the cache answers is a matter of time."""
    space = ENASMicro(nodes=2)
    tokens = space.random(np.random.default_rng(0))
    architecture = space.canonical(space.decode(tokens))
    others = space.encode(architecture)
    assert tokens != others
    json, key = architecture.to_json(), space.key(architecture)
    first, second = (Child(ChildId(0, 0, 0), 0, one, json, key, seed=1) for one in (tokens, others))
    assert Simulated().metric(first, space) == Simulated().metric(second, space)


def test_which_epoch_counts():
    curve = [0.9, 0.1, 0.2, 0.5, 0.4, 0.3]
    assert Train(counts="last").score(curve) == 0.3
    assert Train(counts="best").score(curve) == 0.9
    assert Train(counts="max_of_last_5").score(curve) == 0.5


def test_a_child_that_is_too_large_is_refused_before_memory_is_touched():
    """A hundred gigabytes of weights: building it for real would fail on this machine."""
    space = LayerwiseCNN(layers=3, filters=(60_000,), filter_heights=(3,), filter_widths=(3,), skip_connections=False)
    trainer = Train(epochs=1).open(WorkerContext(space, Digits(), seed=0, max_parameters=10**6))
    architecture = space.decode((0,) * 9)
    with pytest.raises(ChildTooLarge, match=r"64,8.*parameters, 1,000,000 allowed"):
        trainer.evaluate(Child(ChildId(0, 0, 0), 0, (0,) * 9, architecture.to_json(), "", 0))


def test_durations_are_the_childs_own():
    duration = Simulated(duration={"seconds": 2.0, "sigma": 0.5}).duration
    draws = [duration.draw(seed) for seed in range(2000)]
    assert draws[:3] == [duration.draw(seed) for seed in range(3)]
    assert sorted(draws)[1000] == pytest.approx(2.0, rel=0.1)
