"""The journal and the snapshots: what is durable, what is refused, what a crash leaves."""

import dataclasses
import fcntl
import multiprocessing
import os
import random
import shutil
import signal
import sqlite3
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nas_cluster.core.errors import ConfigError, Fenced, RunError
from nas_cluster.core.evaluation import Child, ChildId, Evaluation
from nas_cluster.storage.database import StorageFailed, connect
from nas_cluster.storage.journal import Journal
from nas_cluster.storage.layout import JOURNAL, LOCK, check_run_name, run_directory
from nas_cluster.storage.migration import SCHEMA_VERSION
from nas_cluster.storage.record import RunRecord
from nas_cluster.storage.rows import BatchRow, ChildRow, TrainingRow
from nas_cluster.storage.snapshots import DamagedSnapshot, SnapshotStore


def batch(update, replica=0, size=8, key=None):
    row = BatchRow(replica, update, base_version=update, controller_hash="h", planned_at=1.0)
    children = []
    for index in range(size):
        number = update * size + index
        child = Child(
            ChildId(replica, update, index), number, (number, 2**61), {"n": number}, key or str(number), number
        )
        children.append(ChildRow(child, -1.0, 2.0, planned_at=1.0))
    return row, children


def finish(journal, child_row, metric=0.5):
    evaluation = Evaluation({"accuracy": metric, "seconds": 1.0, "parameters": 7})
    about = {"metric": metric, "reward": metric, "started_at": 2.0, "finished_at": 3.0}
    return journal.done(replace(child_row, evaluation=evaluation, worker="w", attempts=1, **about))


@pytest.fixture
def run(tmp_path):
    Journal.create(tmp_path / "run", "run", {"budget": {"max_children": 9}})
    return tmp_path / "run"


def test_rows_come_back_as_they_were(run):
    row, children = batch(0)
    with Journal.open(run) as journal:
        journal.plan(row, children)
        assert finish(journal, children[0])
        journal.applied(0, 0, applied_at=4.0, staleness=2, verdict="applied", scalars={"loss": 0.5})
        journal.event("fault", what="x")
    record = RunRecord.open(run)
    stored = record.children()
    assert stored[1] == children[1]
    assert stored[0].evaluation == Evaluation({"accuracy": 0.5, "seconds": 1.0, "parameters": 7})
    assert stored[0].child.tokens == (0, 2**61)
    assert record.batch(0, 0) == dataclasses.replace(
        row, learning_epochs=1, applied_at=4.0, staleness=2, verdict="applied", scalars={"loss": 0.5}
    )
    assert [e.kind for e in record.events()] == ["fault"]
    assert record.counts() == {"planned": 8, "done": 1, "ok": 1, "failed": 0, "cached": 0}
    assert record.used_numbers() == set(range(8))


def test_a_minibatch_is_applied_with_its_last_epoch(run):
    def applied(journal, learning_epoch, staleness, verdict="applied"):
        scalars = {"loss": float(learning_epoch)}
        journal.applied(
            0,
            0,
            learning_epoch=learning_epoch,
            last=learning_epoch == 2,
            applied_at=4.0,
            staleness=staleness,
            verdict=verdict,
            scalars=scalars,
        )

    with Journal.open(run) as journal:
        journal.plan(*batch(0))
        for epoch, staleness in ((0, 1), (0, 9), (1, 3)):  # the second epoch 0 is a replay and changes nothing
            applied(journal, epoch, staleness)
        assert journal.first_unapplied() == {0: (0, 2)}
        assert journal.batch(0, 0).applied_at is None
        applied(journal, 2, 0, "void")
        applied(journal, 2, 5)
        assert journal.first_unapplied() == {}
        row = journal.batch(0, 0)
    assert (row.learning_epochs, row.applied_at, row.staleness, row.verdict, row.scalars) == (
        3,
        4.0,
        3,
        "void",
        {"loss": 2.0},
    )


def test_log_probabilities_come_back_bit_by_bit(run):
    rng = np.random.default_rng(0)
    single = -rng.exponential(3, 500).astype(np.float32)
    log_probs = (*single.tolist(), *(-rng.exponential(3, 500)).tolist(), -0.0, -1e-45, -3e38)
    row, (child, *_) = batch(0)
    child = dataclasses.replace(child, log_prob=sum(log_probs), step_log_probs=log_probs, arm="control")
    with Journal.open(run) as journal:
        journal.plan(row, [child])
        assert journal.batch_children(0, 0) == [child]
        stored = np.array(journal.batch_children(0, 0)[0].step_log_probs)
    assert stored.tobytes() == np.array(log_probs).tobytes()


def test_a_child_without_a_policy_has_no_log_probability(run):
    row, (child, *_) = batch(0)
    with Journal.open(run) as journal:
        journal.plan(row, [dataclasses.replace(child, log_prob=None, entropy=None)])
        (stored,) = journal.children()
    assert (stored.log_prob, stored.entropy, stored.step_log_probs, stored.arm) == (None, None, None, "search")


def test_the_first_committed_result_wins(run):
    row, children = batch(0)
    with Journal.open(run) as journal:
        journal.plan(row, children)
        assert finish(journal, children[0], 0.5)
        assert not finish(journal, children[0], 0.9)
        assert journal.children()[0].reward == 0.5
        assert [e.kind for e in journal.events()] == ["duplicate_result"]


def test_a_minibatch_may_be_extended_but_no_child_planned_twice(run):
    row, children = batch(0)
    with Journal.open(run) as journal:
        journal.plan(row, children[:3])
        journal.plan(row, children[3:])
        assert len(journal.batch_children(0, 0)) == 8
        with pytest.raises(sqlite3.IntegrityError):
            journal.plan(row, children[:1])
        assert journal.first_unapplied() == {0: (0, 0)}


def test_a_transaction_is_whole_or_nothing(run):
    with Journal.open(run) as journal:
        with pytest.raises(ZeroDivisionError), journal.transaction():
            journal.plan(*batch(0))
            raise ZeroDivisionError
        assert journal.counts()["planned"] == 0


def test_a_newer_session_fences_the_older_one(run, monkeypatch):
    monkeypatch.setattr("nas_cluster.storage.database.fcntl.flock", lambda *args: None)
    older, newer = Journal.open(run), Journal.open(run)
    with pytest.raises(Fenced):
        older.plan(*batch(0))
    newer.plan(*batch(0))
    assert newer.counts()["planned"] == 8
    assert (older.term, newer.term) == (1, 2)


def test_a_run_in_use_names_its_user(run):
    with Journal.open(run), pytest.raises(RunError, match=f"is in use by process {os.getpid()}"):
        Journal.open(run, wait_seconds=0.1)
    Journal.open(run).close("done")
    assert [s.ended for s in RunRecord.open(run).sessions()] == [None, "done"]


def test_a_run_is_running_while_somebody_holds_it(run):
    record = RunRecord.open(run)
    assert record.state() == "not started"
    with Journal.open(run) as journal:
        assert record.state() == "running"
        journal.close("stopped")
        assert record.state() == "stopped"
    Journal.open(run).close()
    assert record.state().startswith("its process was lost")
    reading = os.open(run / LOCK, os.O_RDWR)
    fcntl.flock(reading, fcntl.LOCK_SH)  # somebody else asks the same
    assert not record.live
    os.close(reading)


def test_readers_see_committed_rows_only_also_while_writing(run):
    with Journal.open(run) as journal:
        reader = RunRecord.open(run)
        with journal.transaction():
            journal.plan(*batch(0))
            assert reader.counts()["planned"] == 0
        assert reader.counts()["planned"] == 8
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader._db.execute("DELETE FROM children")


def test_top_and_cache_queries(run):
    with Journal.open(run) as journal:
        for update, (key, metric) in enumerate([("a", 0.3), ("b", 0.9), ("a", 0.3), ("c", 0.5)]):
            row, children = batch(update, size=1, key=key)
            journal.plan(row, children)
            finish(journal, children[0], metric)
        assert [r.child.key for r in journal.top(5)] == ["b", "c", "a"]
        assert journal.top(5)[2].child.number == 0
        assert journal.find_scored("a").child.number == 0
        assert journal.find_scored("z") is None
        for update, cause in ((4, "killed"), (5, "too_large")):
            row, children = batch(update, size=1, key=cause)
            journal.plan(row, children)
            failed = Evaluation.failure(cause, "m")
            journal.done(replace(children[0], evaluation=failed, reward=0.0, finished_at=1.0))
        assert journal.find_scored("killed") is None
        assert journal.find_scored("too_large") is not None


def test_retrainings_are_kept_apart_by_settings(run):
    with Journal.open(run) as journal:
        rows = [TrainingRow("retrain", "c", {}, 1, seed, {"epochs": e}) for seed in (0, 1) for e in (5, 9)]
        journal.plan_trainings(rows)
        result = {"evaluation": Evaluation({"accuracy": 0.8}), "metric": 0.8, "reward": 0.8, "finished_at": 1.0}
        journal.training_done(dataclasses.replace(rows[0], test_metric=0.7, **result), 1)
        journal.training_done(dataclasses.replace(rows[0], test_metric=0.6, **result), 1)
        journal.plan_trainings(rows[:1])
        done = [r for r in journal.trainings() if r.evaluation]
        assert len(journal.trainings()) == 4
        assert [(r.settings, r.test_metric) for r in done] == [({"epochs": 5}, 0.7)], "the first result counts"


def _write_for_ever(run):
    journal = Journal.open(run)
    update = len(journal.batches())
    while True:
        row, children = batch(update)
        journal.plan(row, children)
        with journal.transaction():
            for child in children:
                finish(journal, child)
        journal.applied(0, update, applied_at=1.0, staleness=0, verdict="applied", scalars={})
        update += 1


def test_kill_9_of_the_writer_leaves_whole_transactions(run):
    fork = multiprocessing.get_context("fork")
    rng = random.Random(0)
    before = 0
    for _ in range(25):
        process = fork.Process(target=_write_for_ever, args=(run,))
        process.start()
        time.sleep(rng.uniform(0.01, 0.12))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        record = RunRecord.open(run)
        counts = record.counts()
        assert counts["planned"] >= before
        assert counts["planned"] % 8 == counts["done"] % 8 == 0
        assert counts["planned"] - counts["done"] <= 8 * len(record.sessions())
        before = counts["planned"]
    assert before > 100


def _start(directory):
    Journal.create(directory, "run", {})
    with Journal.open(directory):
        pass


def test_kill_9_at_any_moment_of_a_start_leaves_no_run_or_one_that_can_be_read(tmp_path, measured):
    fork = multiprocessing.get_context("fork")
    started = time.monotonic()
    _start(tmp_path / "whole")
    longest = 2 * (time.monotonic() - started)
    runs = 0
    for moment in range(40):
        process = fork.Process(target=_start, args=(tmp_path / str(moment),))
        process.start()
        time.sleep(longest * moment / 40)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        if (tmp_path / str(moment) / JOURNAL).exists():
            assert RunRecord.open(tmp_path / str(moment)).children() == []
            runs += 1
    assert 0 < runs < 40
    measured("kill -9 while a run is being made", f"40 kills, {runs} runs, all readable")


def test_of_two_that_start_a_run_at_once_one_is_refused(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    monkeypatch.setattr(Path, "exists", lambda path: False)  # the other one comes after we have looked
    Journal.create(tmp_path / "run", "first", {})
    with pytest.raises(RunError, match="already holds a run"):
        Journal.create(tmp_path / "run", "second", {})
    monkeypatch.undo()
    assert RunRecord.open(tmp_path / "run").name == "first"


def test_a_journal_cut_at_any_byte_is_an_earlier_state_or_one_clear_error(run, tmp_path, measured):
    with Journal.open(run) as journal:
        for update in range(20):
            row, children = batch(update)
            journal.plan(row, children)
            for child in children:
                finish(journal, child)
        copy = tmp_path / "copy"
        shutil.copytree(run, copy)  # with its write-ahead log, as a crash would leave it
    rng = random.Random(0)
    readable = 0
    for name in (f"{JOURNAL}-wal", JOURNAL):
        whole = (copy / name).read_bytes()
        for _ in range(40):
            broken = tmp_path / "broken"
            shutil.rmtree(broken, ignore_errors=True)
            shutil.copytree(copy, broken)
            (broken / f"{JOURNAL}-shm").unlink(missing_ok=True)
            (broken / name).write_bytes(whole[: rng.randrange(len(whole))])
            try:
                with Journal.open(broken) as journal:
                    counts = journal.counts()
            except RunError as error:
                assert "\n" not in str(error)
                continue
            assert counts["done"] <= counts["planned"] <= 160
            assert len(journal_children(broken)) == counts["planned"]
            readable += 1
    assert readable > 20
    measured("journal cut at any byte", f"80 cuts, {readable} an earlier state, {80 - readable} refused in one line")


def journal_children(directory):
    return RunRecord.open(directory).children()


def test_a_full_disk_stops_the_run_and_loses_nothing(run):
    with Journal.open(run) as journal:
        journal.plan(*batch(0))
        pages = journal._db.execute("PRAGMA page_count").fetchone()[0]
        journal._db.execute(f"PRAGMA max_page_count = {pages + 2}")
        with pytest.raises(StorageFailed, match="full"):
            for update in range(1, 100):
                journal.plan(*batch(update))
        whole = len(journal.batches())
        assert journal.counts()["planned"] == 8 * whole
        journal._db.execute(f"PRAGMA max_page_count = {pages + 1000}")
        journal.plan(*batch(whole))


WRONG_RUNS = {
    "missing": (lambda d: d.parent / "ruun", "no such run; did you mean 'run'"),
    "storage root": (lambda d: d.parent, "not a run directory .* contains the runs run"),
    "a file": (lambda d: d / JOURNAL, "not a run directory"),
    "not sqlite": (lambda d: damage(d, lambda data: b"nonsense" * 1000), "damaged or not a journal"),
    "empty": (lambda d: damage(d, lambda data: b""), "damaged"),
    "overwritten": (lambda d: damage(d, lambda data: data[:2000] + os.urandom(len(data) - 2000)), "damaged"),
    "another database": (lambda d: other_database(d), "damaged or not a journal"),
    "no run row": (lambda d: edit(d, "DELETE FROM run"), "damaged"),
    "newer": (lambda d: edit(d, f"PRAGMA user_version = {SCHEMA_VERSION + 1}"), "written by a newer nas_cluster"),
}


def damage(directory, change):
    data = (directory / JOURNAL).read_bytes()
    for extra in ("-wal", "-shm"):
        (directory / f"{JOURNAL}{extra}").unlink(missing_ok=True)
    (directory / JOURNAL).write_bytes(change(data))
    return directory


def other_database(directory):
    (directory / JOURNAL).unlink()
    db = sqlite3.connect(directory / JOURNAL)
    db.execute("CREATE TABLE shopping (item)")
    db.close()
    return directory


def edit(directory, statement):
    db = sqlite3.connect(directory / JOURNAL)
    db.execute(statement)
    db.commit()
    db.close()
    return directory


@pytest.mark.parametrize("case", WRONG_RUNS)
def test_a_wrong_or_damaged_run_gives_one_clear_line(run, case):
    make, message = WRONG_RUNS[case]
    with pytest.raises(RunError, match=message) as caught:
        RunRecord.open(make(run))
    assert "\n" not in str(caught.value)


def test_connect_refuses_to_create(tmp_path):
    with pytest.raises(RunError):
        connect(tmp_path, writable=True)
    assert not (tmp_path / JOURNAL).exists()


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", ".hidden", "a" * 101, "a b", "ü"])
def test_run_names_cannot_leave_the_storage_root(name):
    with pytest.raises(ConfigError, match="the nearest is"):
        check_run_name(name)


def test_run_directory(tmp_path):
    assert run_directory(str(tmp_path), "my-run_1.2") == tmp_path / "my-run_1.2"


@pytest.fixture
def store(tmp_path):
    return SnapshotStore(tmp_path)


ARRAYS = {"0.weights": np.arange(5, dtype=np.float32), "1.empty": np.zeros(0, np.float32)}


def test_snapshots_round_trip(store):
    row = store.write(7, ARRAYS, {"a": [1, None]})
    arrays, meta = store.load(row)
    assert meta == {"a": [1, None]}
    assert all(np.array_equal(arrays[name], ARRAYS[name]) for name in ARRAYS)


def test_any_damage_is_found_and_the_newest_good_snapshot_wins(store, tmp_path):
    rows = [store.write(v, {"w": np.full(3, v, np.float32)}, {"v": v}) for v in (1, 2, 3)]
    newest = tmp_path / rows[2].path
    whole = newest.read_bytes()
    for damaged in (whole[:-1], b"", whole[:40] + b"\x00" + whole[41:], whole + b"x"):
        newest.write_bytes(damaged)
        with pytest.raises(DamagedSnapshot, match="SHA-256"):
            store.load(rows[2])
    (tmp_path / rows[1].path).unlink()
    (found, arrays, meta), refused = store.newest_good(rows)
    assert (found, meta["v"], arrays["w"].tolist()) == (rows[0], 1, [1, 1, 1])
    assert [row.version for row, _ in refused] == [3, 2]


def test_only_old_snapshots_may_go(store, tmp_path):
    rows = [store.write(v, ARRAYS, {"v": v}) for v in range(5)]
    old = store.old(rows, keep=3)
    assert [row.version for row in old] == [1, 0]
    store.remove(old)
    assert len(list(tmp_path.iterdir())) == 3
