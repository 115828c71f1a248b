"""Somebody's own task, dataset, space and estimator (tabular.py) work together, and the package knows none of them."""

from dataclasses import dataclass

import numpy as np
import pytest
from tabular import TableArrays, Tables, TableSpace, TableTask

from nas_cluster import JobConfig, load_run, run
from nas_cluster.architectures import choose
from nas_cluster.core.errors import ConfigError, DataError
from nas_cluster.datasets import resident
from nas_cluster.plan import make_plan
from nas_cluster.retrain import retrain
from nas_cluster.show import describe
from nas_cluster.testing import check_dataset, check_space


@pytest.fixture
def table_job(tmp_path):
    def make(**changes):
        return JobConfig.from_dict(
            {
                "name": "tables",
                "mode": "synchronous",
                "dataset": "tabular:Tables",
                "space": "tabular:TableSpace",
                "strategy": {"kind": "reinforce", "learning_rate": 0.01},
                "estimator": "tabular:Regress",
                "topology": {"controller_replicas": 1, "children_per_replica": 2},
                "budget": {"max_children": 4},
                "cache": False,
                "storage_path": str(tmp_path),
                **changes,
            }
        )

    return make


WITHOUT_DATASET = {"dataset": "none", "estimator": "tabular:RegressOwn"}


@pytest.mark.parametrize("changes", [{}, WITHOUT_DATASET], ids=["dataset", "none"])
@pytest.mark.timeout(120)
def test_a_search_and_a_retraining(table_job, tmp_path, changes):
    record = run(table_job(**changes), local=True)
    assert record.counts()["ok"] == 4
    assert all(row.evaluation.parameters in (21, 81) for row in load_run(tmp_path / "tables").top(2))
    shown = describe(choose(f"{tmp_path / 'tables'}:1"))
    best = record.top(1)[0].evaluation
    assert (shown["task"], shown["parameters"]) == ("tables of 3 columns", best.parameters)
    (result,) = retrain(tmp_path / "tables", seeds=1, local=True)
    assert 0 < result.ranked[0].reward < 1


@pytest.mark.parametrize("changes", [{}, WITHOUT_DATASET], ids=["dataset", "none"])
def test_a_plan_counts_sizes(table_job, changes):
    plan = make_plan(table_job(**changes))
    sizes = {child["parameters"]: child["forward_flops"] for child in plan["first_children"]}
    assert sizes.items() <= {21: 2 * (3 * 4 + 4), 81: 2 * (3 * 16 + 16)}.items()
    if changes:
        assert "dataset" not in plan
    else:
        about = {"kind": "tabular:Tables", "task": "tables of 3 columns", "training_rows": 64}
        assert plan["dataset"] == about
    assert plan["cost"]["operations_per_child"] > 0


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"space": "layerwise_cnn"}, "space: 'layerwise_cnn' is for images, dataset 'tabular:Tables' is tables"),
        ({"estimator": "train"}, "estimator: 'train' is for images, dataset 'tabular:Tables' is tables"),
        ({"dataset": "none"}, "dataset: estimator 'tabular:Regress' needs one"),
        (
            {**WITHOUT_DATASET, "space": "layerwise_cnn"},
            "space: 'layerwise_cnn' is for images, estimator 'tabular:RegressOwn' is tables",
        ),
        ({**WITHOUT_DATASET, "retrain": "tabular:Regress"}, "dataset: retrain 'tabular:Regress' needs one"),
        (
            {**WITHOUT_DATASET, "finalize": [{"name": "a", "estimator": "tabular:Regress"}]},
            "finalize.0.dataset: estimator 'tabular:Regress' needs one",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(table_job, changes, line):
    with pytest.raises(ConfigError) as caught:
        table_job(**changes)
    assert str(caught.value) == f"config: {line}"


def test_a_subclass_of_a_task_is_understood(table_job):
    assert table_job(dataset=Wider()).dataset.task_type is WiderTask


def test_the_conformance_suites_take_a_task_they_do_not_know(tmp_path, monkeypatch):
    monkeypatch.setenv("NAS_CLUSTER_CACHE", str(tmp_path))
    check_dataset(Tables())
    check_space(TableSpace(), tasks=[TableTask(2), TableTask(7)])
    with pytest.raises(AssertionError, match="say with `tasks` what children are built for"):
        check_space(TableSpace())


@dataclass(frozen=True)
class WiderTask(TableTask):
    pass


class Wider(Tables):
    task_type = WiderTask


class Unstorable(Tables):
    what: str

    def load(self):
        data = super().load()
        return {
            "objects": TableArrays(data.rows, data.targets.astype(object), data.columns),
            "a set": TableArrays(data.rows, data.targets, {"a", "b", "c"}),
            "keys": TableArrays(data.rows, data.targets, {1: "a", 2: "b", 3: "c"}),
            "number": TableArrays(data.rows, data.targets, [np.int64(1), 2, 3]),
        }[self.what]

    def identity(self):
        return {"kind": self.kind, "what": self.what}


@pytest.mark.parametrize("what", ["objects", "a set", "keys", "number"])
def test_arrays_that_a_cache_would_not_give_back_are_refused_in_one_line(tmp_path, monkeypatch, what):
    monkeypatch.setenv("NAS_CLUSTER_CACHE", str(tmp_path))
    field = (
        "targets is an array of Python objects" if what == "objects" else "columns is no array and nothing that JSON"
    )
    with pytest.raises(DataError, match=f"dataset .*Unstorable: {field}"):
        resident(Unstorable(what=what))
    assert not list(tmp_path.rglob("about.json"))
