"""`nas-cluster chaos` as it is typed."""

import importlib
import json

import pytest
from click.testing import CliRunner

from nas_cluster import job
from nas_cluster.cli import commands
from nas_cluster.cluster.operations.chaos import ChaosReport, Injected
from nas_cluster.core.errors import ConfigError, RunError

module = importlib.import_module("nas_cluster.cli.chaos")  # the package has the command of that name
REPORT = ChaosReport(
    seed=7,
    injected=(Injected(20.0, "worker", "worker-1", 0.4, 2.1), Injected(40.0, "node_drain", "ab12", None, None)),
    state="stopped",
    account={"planned": 12, "done": 12, "not_done": 0},
)


class Nothing:
    def __init__(self, directory):
        self.directory = directory

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.fixture
def chaos(monkeypatch):
    """Run the command on a cluster that is not there; what the injector was asked for."""
    asked = {}

    def inject(directory, targets, *, on_fault, **options):
        asked.update(options)
        for injected in REPORT.injected:
            on_fault(injected)
        return REPORT

    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setattr(module, "_targets_of", Nothing)
    monkeypatch.setattr(module, "inject", inject)
    return lambda *words: (CliRunner().invoke(commands, ["chaos", "runs/x", *words], catch_exceptions=False), asked)


def test_faults_are_told_as_they_happen_and_summed_up(chaos):
    result, asked = chaos("--seed", "7", "--minutes", "2", "--faults", "worker,node_drain")
    assert asked == {"seed": 7, "minutes": 2.0, "every": 20.0, "faults": ["worker", "node_drain"]}
    lines = result.output.splitlines()
    assert "worker-1" in lines[0] and "noticed 0.4 s, went on 2.1 s" in lines[0]
    assert "noticed not" in lines[1]
    assert lines[2:] == ["2 faults, seed 7; the run: stopped", "children: planned 12, done 12, not done 0"]


def test_nodes_are_left_alone_unless_named(chaos):
    _, asked = chaos()
    assert asked["faults"] == ["child", "worker", "shard", "replica"]


def test_the_report_for_machines(chaos):
    result, _ = chaos("--json")
    assert json.loads(result.output) == json.loads(json.dumps(REPORT.to_json()))


@pytest.mark.parametrize(
    "words,message",
    [
        (["--faults", "worker,shards"], "no fault 'shards'; did you mean 'shard'"),
        (["--faults", ","], "name at least one of"),
    ],
)
def test_a_wrong_fault_is_one_line(chaos, words, message):
    with pytest.raises(ConfigError, match=message):
        chaos(*words)


def test_it_needs_a_cluster_and_a_run(monkeypatch, simulated_job, tmp_path):
    with pytest.raises(ConfigError, match="RAY_ADDRESS: is not set"):
        CliRunner().invoke(commands, ["chaos", str(tmp_path)], catch_exceptions=False)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    job.prepare(simulated_job(name="run"))
    with pytest.raises(RunError, match="no such run"):
        CliRunner().invoke(commands, ["chaos", str(tmp_path / "rum")], catch_exceptions=False)
