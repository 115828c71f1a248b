"""Runs and configs of version 0.1.0 are read and continued for ever (runs_0_1_0/make.py made the runs).

Only what a user has is used here: the Python API, the command line, and SQLite on the columns of 0.1.0.
"""

import json
import tarfile
from pathlib import Path

import pytest
from runs_0_1_0.traces import SAMPLED, committed, computer, rows, trace

import nas_cluster
from nas_cluster.cli import main

HERE = Path(__file__).parent
RUNS = HERE / "runs_0_1_0"
CONFIGS = sorted((HERE / "configs_0_1_0").glob("*.yaml"))
QUICK = ["nas_rl_cnn", "nas_rl_recurrent", "nasnet", "evolution"]
TRAINED = ["nas_rl_real", "enas_micro", "enas_macro", "enas_recurrent", "smash"]
ALL = [*QUICK, *TRAINED, "asynchronous", "finalized"]
SYNCHRONOUS = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in TRAINED)]


@pytest.fixture
def old_run(tmp_path, monkeypatch):
    """Unpack a run, as if it had been made where the test runs; its directory and what it must come to."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").symlink_to(RUNS / "text")  # a config names its texts

    def unpack(name):
        with tarfile.open(RUNS / f"{name}.tar.gz") as archive:
            archive.extractall(tmp_path / "runs", filter="data")
        return tmp_path / "runs" / name, json.loads((RUNS / f"{name}.json").read_text())

    return unpack


@pytest.fixture
def cli(capsys):
    def call(*arguments):
        code = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code or 0
        out = capsys.readouterr()
        assert code == 0, out.err
        return out.out

    return call


def resume(directory, children):
    return nas_cluster.resume(directory, [f"budget.max_children={children}"], local=True)


def check_unchanged(now, before):
    """A later version may have added columns; what was committed stays."""
    assert [{name: row[name] for name in old} for row, old in zip(now, before, strict=True)] == list(before)


def check_done(record, children):
    assert record.state() == "done"
    done = [row["number"] for row in committed(record.directory).values()]
    assert sorted(done) == list(range(children))
    assert record.counts()["planned"] == children
    happened = [row["kind"] for row in rows(record.directory, "SELECT kind FROM events")]
    assert not [kind for kind in happened if "refused" in kind], "snapshots and shared tensors are readable"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_of_0_1_0_is_read(path):
    config = nas_cluster.JobConfig.load(path)
    assert nas_cluster.JobConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize("name", ALL)
def test_a_run_of_0_1_0_is_read(old_run, cli, name):
    directory, expected = old_run(name)
    counts, before = expected["counts"], committed(directory)
    assert f"{counts['done']} of " in cli("status", directory)
    assert counts.items() <= json.loads(cli("status", directory, "--json"))["children"].items()
    distinct = len({row["key"] for row in before.values() if row["status"] == "ok"})
    assert len(json.loads(cli("top", directory, "-k", 1000, "--json"))) == distinct
    assert len(cli("top", directory, "-k", 3).splitlines()) == 4
    cli("report", directory)
    assert (directory / "report.html").stat().st_size > 10_000
    record = nas_cluster.load_run(directory)
    found = {str(row.child.child_id): row for row in record.children()}
    assert {name for name, row in found.items() if row.done} == set(before)
    for name, row in before.items():
        assert found[name].child.tokens == tuple(json.loads(row["tokens"]))
        assert (found[name].child.key, found[name].reward) == (row["key"], row["reward"])
    assert [row.result.digest for row in record.phases()] == [
        json.loads(row["result"])["digest"] for row in rows(directory, "SELECT result FROM phases ORDER BY phase")
    ]


@pytest.mark.parametrize("name", SYNCHRONOUS)
def test_a_run_of_0_1_0_continues_bit_by_bit(old_run, name):
    directory, expected = old_run(name)
    before, sessions = committed(directory), len(rows(directory, "SELECT * FROM sessions"))
    assert 0 < len(before) < expected["max_children"]
    record = resume(directory, expected["max_children"])
    check_done(record, expected["max_children"])
    assert len(rows(directory, "SELECT * FROM sessions")) == sessions + 1
    after = committed(directory)
    check_unchanged([after[child] for child in before], before.values())
    found = trace(directory)
    if computer() == expected["computer"]:
        for part in found:
            assert found[part] == expected[part]
    elif expected["simulated"]:
        for number, child in expected["children"].items():
            assert {key: found["children"][number][key] for key in SAMPLED} == {key: child[key] for key in SAMPLED}


def test_an_asynchronous_run_of_0_1_0_continues(old_run):
    directory, expected = old_run("asynchronous")
    before = committed(directory)
    assert len(before) < len(expected["children"]) < expected["max_children"], "it was stopped with children in flight"
    check_done(resume(directory, expected["max_children"]), expected["max_children"])
    after, found = committed(directory), trace(directory)
    check_unchanged([after[child] for child in before], before.values())
    for number, child in expected["children"].items():
        assert {key: found["children"][number][key] for key in SAMPLED} == {key: child[key] for key in SAMPLED}
    assert all(row["applied_at"] is not None for row in rows(directory, "SELECT applied_at FROM batches"))
    assert any(row["cached_from"] in before for name, row in after.items() if name not in before)


def test_a_finished_run_of_0_1_0_has_nothing_left_to_do(old_run, cli):
    directory, expected = old_run("finalized")
    tables = ("sessions", "children", "batches", "trainings", "events")
    before = {table: rows(directory, f"SELECT * FROM {table}") for table in tables}
    assert {row["stage"] for row in before["trainings"]} == {"rerank", "winner", "retrain"}
    assert nas_cluster.run(nas_cluster.JobConfig.load(directory / "config.yaml"), local=True).state() == "done"
    for table, old in before.items():
        check_unchanged(rows(directory, f"SELECT * FROM {table}"), old)
    assert nas_cluster.resume(directory, local=True).state() == "done"
    assert "done" in cli("resume", directory, "--local")
    assert trace(directory) == {part: expected[part] for part in ("children", "batches", "phases", "trainings")}
