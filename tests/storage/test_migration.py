"""Journals of version 1: readable as they are, brought up to date by a writer."""

import json
import os
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from nas_cluster.core.errors import RunError
from nas_cluster.core.evaluation import Evaluation
from nas_cluster.storage.journal import Journal
from nas_cluster.storage.layout import JOURNAL
from nas_cluster.storage.migration import SCHEMA_VERSION, version_of
from nas_cluster.storage.record import RunRecord

SCHEMA_1 = (Path(__file__).parent / "schema_1.sql").read_text()
SETTINGS = {
    "estimator": {"kind": "train", "metric": "last", "reward": "accuracy", "epochs": 3},
    "point": {},
    "scale": {},
}


def compact(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


@pytest.fixture(params=["train", "train_language_model", "missing:Mine"])
def run(tmp_path, request):
    """A run as 0.1 left it: one child scored, one failed, one open; one training done, one open."""
    directory = tmp_path / "run"
    directory.mkdir()
    db = sqlite3.connect(directory / JOURNAL)
    db.executescript(f"{SCHEMA_1}\nPRAGMA user_version = 1;")
    config = {"name": "run", "estimator": {"kind": request.param}, "budget": {"max_children": 3}}
    db.execute("INSERT INTO run VALUES ('run', 'id', ?, 1.0, 1)", (compact(config),))
    db.execute(
        'INSERT INTO batches (replica, "update", base_version, controller_hash, planned_at) VALUES (0,0,0,"h",1)'
    )
    for index in range(3):
        db.execute(
            'INSERT INTO children (child_id, replica, "update", "index", number, tokens, architecture, key, seed, arm,'
            " planned_at) VALUES (?, 0, 0, ?, ?, '[]', '{}', ?, 0, 'search', 1)",
            (f"r0-u0-i{index}", index, index, str(index)),
        )
    done = "UPDATE children SET status=?, cause=?, message=?, metric=?, reward=?, parameters=?, seconds=?, details=?,"
    done += " finished_at=1 WHERE number=?"
    db.execute(done, ("ok", None, "", 0.5, 0.125, 7, 2.0, compact({"path": "eager", "test_metric": 0.25}), 0))
    db.execute(done, ("failed", "exit", "m", None, 0.0, None, 1.0, "{}", 1))
    evaluation = {
        **{"metric": 0.5, "status": "ok", "cause": None, "message": "", "seconds": 2.0, "parameters": 7},
        "details": {"test_metric": 0.25},
    }
    settings = {**SETTINGS, "estimator": {**SETTINGS["estimator"], "kind": "train"}}
    for seed, said in ((0, compact(evaluation)), (1, None)):
        row = ("winner", "r0-u0-i0", "{}", 1, seed, compact(settings), said, 0.5 if said else None, None, None)
        db.execute("INSERT INTO trainings VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    db.commit()
    db.close()
    return directory


def expected(run):
    kind = json.loads(sqlite3.connect(run / JOURNAL).execute("SELECT config FROM run").fetchone()[0])["estimator"][
        "kind"
    ]
    name = "perplexity" if kind == "train_language_model" else "accuracy"
    metrics = {name: 0.5, "parameters": 7, "seconds": 2.0, f"test_{name}": 0.25}
    return Evaluation(metrics, message="", details={"path": "eager"})


def check(found, evaluation):
    scored, failed, waiting = found.children()
    assert (scored.evaluation, scored.metric, scored.reward) == (evaluation, 0.5, 0.125)
    assert failed.evaluation == Evaluation.failure("exit", "m", 1.0)
    assert waiting.evaluation is None
    training, still = found.trainings()
    assert training.evaluation.metrics == {"accuracy": 0.5, "parameters": 7, "seconds": 2.0, "test_accuracy": 0.25}
    assert (training.metric, still.evaluation) == (0.5, None)
    assert found.reports("r0-u0-i0") == []


def test_a_reader_reads_it_and_leaves_it_as_it_is(run):
    before = (run / JOURNAL).read_bytes()
    check(RunRecord.open(run), expected(run))
    assert (run / JOURNAL).read_bytes() == before


def test_it_may_be_on_a_disk_that_nobody_may_write(run):
    if os.getuid() == 0:
        pytest.skip("root may write everything")
    (run / JOURNAL).chmod(0o444)
    run.chmod(0o555)
    try:
        check(RunRecord.open(run), expected(run))
    finally:
        run.chmod(0o755)


def test_a_writer_brings_it_up_to_date_and_goes_on(run):
    evaluation = expected(run)
    with Journal.open(run) as journal:
        check(journal, evaluation)
        now = Evaluation({"accuracy": 0.75, "seconds": 1.0})
        about = {"metric": 0.75, "reward": 0.75, "started_at": 1.0, "finished_at": 2.0, "worker": "w", "attempts": 1}
        assert journal.done(replace(journal.child("r0-u0-i2"), evaluation=now, **about))
    record = RunRecord.open(run)
    assert record.children()[2].evaluation == now
    assert record.children()[0].evaluation == evaluation
    with sqlite3.connect(run / JOURNAL) as db:
        assert version_of(db) == SCHEMA_VERSION
        stored = db.execute("SELECT metric, parameters, seconds FROM children ORDER BY number").fetchall()
    assert stored == [(0.5, 7, 2.0), (None, None, 1.0), (0.75, None, 1.0)]


def test_what_it_becomes_is_what_a_new_journal_is(run, tmp_path):
    def columns(directory):
        db = sqlite3.connect(directory / JOURNAL)
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {table: sorted(column[1:] for column in db.execute(f"PRAGMA table_info({table})")) for table in tables}

    Journal.open(run).close()
    Journal.create(tmp_path / "new", "new", {})
    assert columns(run) == columns(tmp_path / "new")


def test_a_crash_in_the_midst_of_it_changes_nothing(run, tmp_path, monkeypatch):
    copy = shutil.copytree(run, tmp_path / "copy")
    monkeypatch.setattr("nas_cluster.storage.migration.SCHEMA_VERSION", "no number")
    with pytest.raises(RunError):
        Journal.open(copy)
    check(RunRecord.open(copy), expected(run))
    with sqlite3.connect(copy / JOURNAL) as db:
        assert version_of(db) == 1
