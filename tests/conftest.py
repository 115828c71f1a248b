"""Shared by all tests: a private home, so that no test touches the user's caches, Ray settings or tokens."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # ray, when it is imported: loopback only

import pytest

from nas_cluster.config import JobConfig


def pytest_assertrepr_compare(op, left, right):
    """Two traces of runs (test_search_in_process.py) that should be equal: where they differ."""
    if op == "==" and hasattr(left, "difference") and type(left) is type(right):
        return ["the runs differ", *left.difference(right)]
    return None


@pytest.fixture(autouse=True, scope="session")
def private_home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    patch = pytest.MonkeyPatch()
    for name, value in {"HOME": home, "XDG_CACHE_HOME": home / ".cache", "RAY_AUTH_MODE": "disabled"}.items():
        patch.setenv(name, str(value))
    for name in ("RAY_ADDRESS", "NAS_CLUSTER_CACHE"):
        patch.delenv(name, raising=False)
    yield home
    patch.undo()


@pytest.fixture
def simulated_job(tmp_path):
    """A factory of small simulated jobs; keyword arguments update sections, those of another kind replace them."""

    def make(**changes):
        data = {
            "name": "job",
            "seed": 1,
            "mode": "synchronous",
            "space": {"kind": "layerwise_cnn", "layers": 3},
            "strategy": {"kind": "reinforce", "learning_rate": 0.01},
            "estimator": {"kind": "simulated"},
            "topology": {
                "parameter_shards": 2,
                "controller_replicas": 2,
                "children_per_replica": 3,
                "snapshot_every": 3,
            },
            "budget": {"max_children": 60},
            "storage_path": str(tmp_path),
        }
        for key, value in changes.items():
            old = data.get(key)
            updates = isinstance(old, dict) and isinstance(value, dict) and value.get("kind") in (None, old.get("kind"))
            data[key] = {**old, **value} if updates else value
        return JobConfig.from_dict(data)

    return make


@pytest.fixture
def measured(record_property):
    """Says a figure of the fault table (deploy/RELIABILITY.md) once all tests are over, from whichever process."""

    def say(fault, figure):
        record_property("measured", f"[measured] {fault}: {figure}")

    return say


def pytest_terminal_summary(terminalreporter):
    reports = [report for category in terminalreporter.stats.values() for report in category]
    calls = [report for report in reports if getattr(report, "when", None) == "call"]
    if lines := [text for report in calls for name, text in report.user_properties if name == "measured"]:
        terminalreporter.section("measured")
        for line in lines:
            terminalreporter.write_line(line)
