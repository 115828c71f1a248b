"""Somebody adds a search space in one file outside the package, as CONTRIBUTING.md shows it, and searches it."""

import re
from pathlib import Path

import pytest

from nas_cluster import JobConfig, load_run, run
from nas_cluster.core.component import find_component
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


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_the_space_of_contributing_md_is_searched(tmp_path, monkeypatch):
    code = re.search(r"```python\n# width_space.py\n(.*?)```", CONTRIBUTING.read_text(), re.S).group(1)
    (tmp_path / "width_space.py").write_text(code)
    (tmp_path / "mine.yaml").write_text(JOB)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    check_space(find_component(SearchSpace, "width_space:WidthSpace")())
    record = run(JobConfig.load("mine.yaml"), local=True)
    assert record.counts()["ok"] == 8
    assert load_run("runs/mine").top(1)[0].metric > 0.05
