"""Where parts go: which nodes count, how many children they hold, how shards and replicas are spread."""

import pytest

pytest.importorskip("ray")

from nas_cluster.cluster.on_ray import placement
from nas_cluster.cluster.on_ray.placement import LearnerPlaces, capacity, child_options, has_labels
from nas_cluster.config import Topology
from nas_cluster.core.errors import ConfigError


def node(name, labels=None, **resources):
    return {"NodeID": name * 28, "Alive": True, "Labels": labels or {}, "Resources": resources}


@pytest.fixture
def cluster(monkeypatch):
    def of(*nodes, autoscaler=None):
        monkeypatch.setattr(placement, "alive_nodes", lambda: list(nodes))
        monkeypatch.setattr(placement.ray, "cluster_resources", lambda: {"CPU": 8.0})
        monkeypatch.setattr(placement, "_autoscaled", lambda resources: autoscaler or 0)

    return of


def places(count, **topology):
    learners = LearnerPlaces(Topology(**topology))
    options = [learners.next() for _ in range(count)]
    assert all(one["num_gpus"] == one["num_cpus"] == 0 for one in options)
    return [one["scheduling_strategy"].node_id[:2] for one in options]


HEAD, CPU1, CPU2 = node("aa", CPU=0.0), node("bb", CPU=8.0), node("cc", CPU=4.0)
GPU = node("dd", {"ray.io/accelerator-type": "A100"}, CPU=16.0, GPU=4.0)
SPOT = node("ee", {"ray.io/market-type": "spot"}, CPU=16.0)


def test_shards_go_round_the_nodes_that_are_for_them(cluster):
    cluster(HEAD, CPU1, CPU2, GPU, SPOT)
    assert places(5) == ["bb", "cc", "bb", "cc", "bb"]
    cluster(HEAD, GPU, SPOT)
    assert places(2) == ["ee", "ee"], "spot nodes before cards and before a head without work"
    cluster(GPU)
    assert places(2) == ["dd", "dd"], "on a node with cards when there is no other, without taking one"
    cluster(HEAD, CPU1, SPOT)
    assert places(2, learner_label_selector={"ray.io/market-type": "spot"}) == ["ee", "ee"]


def test_learners_wait_for_a_node_that_an_autoscaler_brings(cluster):
    cluster(CPU1)
    options = LearnerPlaces(Topology(learner_label_selector={"pool": "learners"})).next()
    assert options == {"num_cpus": 0, "num_gpus": 0, "label_selector": {"pool": "learners"}}


def test_children_are_counted_node_by_node(cluster):
    cluster(CPU1, CPU2, GPU)
    assert capacity(Topology(resources={"CPU": 3})) == 2 + 1 + 5
    assert capacity(Topology(resources={"CPU": 1, "GPU": 0.25})) == 16
    assert capacity(Topology(resources={"CPU": 2, "GPU": 1 / 7})) == 8
    assert capacity(Topology(resources={"CPU": 0, "GPU": 1 / 7})) == 28
    assert (
        capacity(Topology(resources={"CPU": 1, "label_selector": {"ray.io/accelerator-type": "in(A100, H100)"}})) == 16
    )


def test_what_does_not_fit_is_refused_unless_an_autoscaler_makes_it(cluster):
    cluster(CPU1, CPU2)
    with pytest.raises(
        ConfigError, match=r"asks for \{CPU: 10\}, this cluster has \{CPU: 8\} and no room for one on one"
    ):
        capacity(Topology(resources={"CPU": 10}))
    with pytest.raises(ConfigError, match="asks for {CPU: \\d+} on nodes with {zone: a}, .* no room"):
        capacity(Topology(resources={"CPU": 1, "label_selector": {"zone": "a"}}))
    assert capacity(Topology(resources={"CPU": 1, "GPU": 1}, slots=4)) == 0
    cluster(CPU1, autoscaler=40)
    assert capacity(Topology(resources={"CPU": 1, "GPU": 1})) == 40


def test_a_childs_request_is_an_ordinary_one():
    resources = Topology(resources={"CPU": 2, "GPU": 0.5, "label_selector": {"ray.io/market-type": "spot"}}).resources
    assert child_options(resources) == {
        "num_cpus": 2,
        "num_gpus": 0.5,
        "label_selector": {"ray.io/market-type": "spot"},
    }
    assert "label_selector" not in child_options(Topology().resources)


@pytest.mark.parametrize(
    "wanted,matching",
    [("a", {"a"}), ("!a", {"b", "c", None}), ("in(a, b)", {"a", "b"}), ("!in(a,b)", {"c", None})],
)
def test_label_selectors(wanted, matching):
    labels = {value: {} if value is None else {"zone": value} for value in ("a", "b", "c", None)}
    assert {value for value, has in labels.items() if has_labels(has, {"zone": wanted})} == matching
    assert has_labels({}, {})
