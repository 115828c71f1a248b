"""Every estimator on disk."""

import pytest
from text_space import TextSpace

from nas_cluster.core.component import find_component, known_kinds
from nas_cluster.core.errors import ChildTooLarge
from nas_cluster.core.evaluation import Child, ChildId
from nas_cluster.core.task import LanguageTask
from nas_cluster.datasets.digits import Digits
from nas_cluster.datasets.python_docs import PythonDocs
from nas_cluster.estimators import Estimator, WorkerContext
from nas_cluster.estimators.simulated import Simulated, agreement
from nas_cluster.estimators.train import Train
from nas_cluster.spaces.layerwise_cnn import LayerwiseCNN
from nas_cluster.testing import check_estimator

SMALL = {
    "train": {"epochs": 1, "validation": 0.2, "crop_padding": 1, "flip": False},
    "train_language_model": {"epochs": 1, "validation_tokens": 500},
}
SPACE = LayerwiseCNN(layers=2, filters=(4, 8))


@pytest.mark.parametrize("kind", known_kinds(Estimator))
def test_conformance(kind):
    estimator = find_component(Estimator, kind)(**SMALL.get(kind, {}))
    if estimator.task_type is LanguageTask:
        check_estimator(estimator, WorkerContext(TextSpace(), PythonDocs(limit=2000), seed=0))
    else:
        check_estimator(estimator, WorkerContext(SPACE, Digits(), seed=0))


def test_agreement_is_one_exactly_at_the_target():
    spec = SPACE.decisions()
    scores = {}
    for first in range(4):
        for second in range(4):
            scores[first, second] = agreement(spec, (first, second, 0, 0, 0, 0, 0, 0), 3)
    assert len(set(scores.values())) > 3
    assert all(0 <= score <= 1 for score in scores.values())


def test_rewards_by_name():
    assert Train(reward="accuracy").reward_of(0.9) == 0.9
    assert Train(reward="accuracy_cubed").reward_of(0.9) == pytest.approx(0.729)


def test_which_epoch_counts():
    curve = [0.9, 0.1, 0.2, 0.5, 0.4, 0.3]
    assert Train(metric="last").score(curve) == 0.3
    assert Train(metric="best").score(curve) == 0.9
    assert Train(metric="max_of_last_5").score(curve) == 0.5


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
