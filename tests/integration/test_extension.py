"""Somebody adds a search space, or an estimator and a reward, in one file outside the package, as CONTRIBUTING.md shows
them, and searches with it."""

import re
from pathlib import Path

import pytest

from nas_cluster import JobConfig, load_run, run
from nas_cluster.core.component import find_component
from nas_cluster.core.task import ImageTask
from nas_cluster.spaces import SearchSpace
from nas_cluster.testing import check_space

CONTRIBUTING = Path(__file__).parents[2] / "CONTRIBUTING.md"

JOB = """
name: mine
mode: synchronous
dataset: digits
space: {kind: 'width_space:WidthSpace', layers: 2}
strategy: {kind: reinforce, learning_rate: 0.01}
estimator: {kind: train, epochs: 1, validation: 200, flip: false, crop_padding: 0}
topology: {parameter_shards: 2, controller_replicas: 2, children_per_replica: 2}
budget: {max_children: 8}
"""

TRAINED = """
name: trained
mode: synchronous
dataset: digits
space: {kind: layerwise_cnn, layers: 2, filters: [8, 16]}
strategy: random
estimator: {kind: 'my_estimator:MyEstimator', epochs: 1}
reward: my_reward:sharp
topology: {parameter_shards: 1, controller_replicas: 1, children_per_replica: 2}
budget: {max_children: 2}
finalize: [{name: winner, test: true}]
"""


def shown(file):
    """The code that CONTRIBUTING.md shows as this file."""
    found = re.search(rf"```python\n# {file}\n(.*?)```", CONTRIBUTING.read_text(), re.S)
    assert found is not None
    return found.group(1)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_the_space_of_contributing_md_is_searched(tmp_path, monkeypatch):
    (tmp_path / "width_space.py").write_text(shown("width_space.py"))
    (tmp_path / "mine.yaml").write_text(JOB)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    check_space(find_component(SearchSpace, "width_space:WidthSpace")(), tasks=[ImageTask(28, 28, 1, 10)])
    record = run(JobConfig.load("mine.yaml"), local=True)
    assert record.counts()["ok"] == 8
    assert load_run("runs/mine").top(1)[0].metric > 0.05


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_the_estimator_and_the_reward_of_contributing_md_are_searched_with(tmp_path, monkeypatch):
    for file in ("my_estimator.py", "my_reward.py"):
        (tmp_path / file).write_text(shown(file))
    (tmp_path / "trained.yaml").write_text(TRAINED)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    exec(shown("check_mine.py"), {})
    record = run(JobConfig.load("trained.yaml"), local=True)
    assert record.counts()["ok"] == 2
    best = record.top(1)[0]
    assert set(best.evaluation.metrics) == {"accuracy", "loss", "seconds"}
    assert best.reward == pytest.approx(100 / best.metric**3)
    assert [report.metrics for report in record.reports(str(best.child.child_id))] == [
        {name: best.evaluation.metrics[name] for name in ("accuracy", "loss")}
    ]
    assert record.trainings()[0].test_metric is not None
