"""Phases in which the workers train what children share: when they come, what survives, who must agree."""

import contextlib
import itertools
import json
import os
import random
import signal
import sqlite3
from pathlib import Path

import pytest
from searches import FORK, session, trace

from nas_cluster import job
from nas_cluster.core.phases import PhaseSchedule
from nas_cluster.report import write_report

SHARED = {"kind": "shared_sum:SharedSum"}
BUDGET = {"max_children": 60}


def search(config):
    outcome = job.execute(config, local=True)
    return outcome, job.load_run(f"{config.storage_path}/{config.name}")


def totals(record):
    return [row.result.loss for row in record.phases()]


def test_phases_are_due_by_updates():
    alternating = PhaseSchedule(phases=3, updates=10, minibatches=1)
    assert [alternating.due(update) for update in (0, 9, 10, 20, 99)] == [1, 1, 2, 3, 3]
    assert PhaseSchedule(phases=5, updates=0, minibatches=1).due(0) == 5


@pytest.mark.parametrize("mode", ["synchronous", "asynchronous"])
def test_phases_and_updates_alternate(simulated_job, mode, tmp_path):
    config = simulated_job(mode=mode, estimator=SHARED, budget=BUDGET, topology={"slots": 2})
    outcome, record = search(config)
    assert outcome.ended == "done"
    assert record.counts()["ok"] == 60
    phases = record.phases()
    assert len(phases) == 4
    expected, total = [], 0
    for row in phases:
        assert [len(step) for step in row.tokens] == [2, 2, 2]
        total += sum(sum(tokens) for step in row.tokens for tokens in step)
        expected.append(total)
    assert totals(record) == expected, "every phase goes on from the one before"
    per_update = 6 if mode == "synchronous" else 3
    for row in record.children():
        begun = phases[min(3, row.child.number // per_update // 3)]
        later = phases[min(3, row.child.number // per_update // 3) + 1 :]
        assert row.started_at >= begun.finished_at, "a child waits for the phase before it"
        assert all(row.finished_at <= phase.planned_at for phase in later), "a phase waits for the children before it"
    assert len(list((tmp_path / "job" / "shared").iterdir())) == 2, "old files go"
    write_report(record, tmp_path / "report.html")
    assert "Shared weights" in (tmp_path / "report.html").read_text()


def test_children_are_never_answered_from_the_cache(simulated_job):
    small = {"layers": 1, "filters": [8], "filter_heights": [1], "filter_widths": [1, 3], "skip_connections": False}
    _, record = search(simulated_job(space=small, estimator=SHARED, budget=BUDGET))
    assert record.counts()["cached"] == 0
    assert len({row.child.key for row in record.children()}) == 2


def test_a_lost_member_restarts_the_group_and_changes_nothing(simulated_job, tmp_path):
    topology = {"slots": 2}
    _, whole = search(simulated_job(name="whole", estimator=SHARED, budget=BUDGET, topology=topology))
    dying = {**SHARED, "dies_in": [0, 2], "marks": str(tmp_path)}
    outcome, record = search(simulated_job(estimator=dying, budget=BUDGET, topology=topology))
    assert outcome.ended == "done"
    assert totals(record) == totals(whole)
    assert trace(record) == trace(whole)
    assert [e.detail["phase"] for e in record.events() if e.kind == "group_restarted"] == [0, 2]


def test_members_that_disagree_and_a_loss_that_diverges_stop_the_run(simulated_job):
    outcome, record = search(
        simulated_job(estimator={**SHARED, "disagrees_in": 1}, budget=BUDGET, topology={"slots": 2})
    )
    assert outcome.ended == "failed"
    assert "after phase 1 the workers hold different shared tensors" in outcome.reason
    assert record.counts()["done"] == 18, "what was scored before is safe"
    outcome, _ = search(simulated_job(name="other", estimator={**SHARED, "diverges_in": 2}, budget=BUDGET))
    assert outcome.ended == "failed"
    assert "not finite" in outcome.reason


@pytest.mark.parametrize("damage", ["last file lost", "last file damaged"])
def test_a_damaged_file_is_trained_again_from_the_one_before(simulated_job, tmp_path, damage):
    search(simulated_job(estimator=SHARED, budget={"max_children": 45}))
    _, whole = search(simulated_job(name="whole", estimator=SHARED, budget=BUDGET))
    last = max((tmp_path / "job" / "shared").iterdir())
    last.unlink() if damage == "last file lost" else last.write_text(json.dumps({"phase": 2, "total": 5}))
    _, record = search(simulated_job(estimator=SHARED, budget=BUDGET))
    assert trace(record) == trace(whole)
    assert totals(record) == totals(whole)
    assert [e.kind for e in record.events() if e.kind == "shared_tensors_refused"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_runs_killed_between_and_in_phases_end_the_same(simulated_job):
    changes = {"estimator": SHARED, "budget": {"max_children": 120}, "topology": {"slots": 2}}
    _, whole = search(simulated_job(name="whole", **changes))
    rng, kills = random.Random(3), 0
    for runs in itertools.count():  # on a quick machine a session may get through before it is killed
        if kills >= 8:
            break
        config = simulated_job(name=f"broken-{runs}", **changes)
        longest = 1.0
        while True:
            process = FORK.Process(target=session, args=(config,))
            process.start()
            process.join(rng.uniform(0.1, longest))
            longest *= 1.3
            if not process.is_alive():
                assert process.exitcode == 0
                break
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            kills += 1
        record = job.load_run(f"{config.storage_path}/{config.name}")
        assert trace(record) == trace(whole)
        assert totals(record) == totals(whole)
        assert Path(record.phases()[-1].path).exists()


BANKS = {"kind": "memory_bank", "unit": 4, "max_units": 2, "width": 2, "depth": 2, "groups": [1, 2], "max_kernel": 3}
REAL = {
    "shared_dying:SharedDying": {
        "estimator": {"epochs": 3, "updates": 2},
        "space": {"kind": "enas_micro", "nodes": 2, "child": {"layers": 1, "filters": 4}},
    },
    "shared_dying:HypernetworkDying": {
        "estimator": {"epochs": 3, "learning_rate": 0.005, "training_images": 800},
        "space": {**BANKS, "max_ops": 2, "hypernet": {"layers": [2, 1]}},
        "strategy": {"kind": "perturb", "random": 12, "perturbed": 12},
    },
}


def real_job(simulated_job, kind, mark, **changes):
    options = {"kind": kind, "batch_size": 16, "validation": 400, "crop_padding": 0, "mark": str(mark)}
    real = {**REAL[kind], "topology": {"slots": 2}, "budget": {"max_children": 36}}
    name = changes.pop("name")
    return simulated_job(name=name, **{**real, "estimator": {**options, **real["estimator"], **changes}})


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", REAL)
def test_two_workers_of_real_shared_tensors_lose_one_and_end_the_same(simulated_job, tmp_path, kind):
    """On digits with W=2, over ENAS cells, and over memory banks with a hypernetwork: both workers hold the same
    tensors after every phase (the run stops otherwise), also when one is killed in the middle of one, and the search
    does not notice."""
    mark = tmp_path / "died"
    outcome, whole = search(real_job(simulated_job, kind, mark, name="whole"))
    assert outcome.ended == "done"
    assert not mark.exists()
    outcome, broken = search(real_job(simulated_job, kind, mark, name="broken", dies_in=1))
    assert outcome.ended == "done"
    assert mark.exists()
    assert [e.detail["phase"] for e in broken.events() if e.kind == "group_restarted"] == [1]
    assert [row.result.digest for row in broken.phases()] == [row.result.digest for row in whole.phases()]
    assert len({row.result.digest for row in whole.phases()}) == 3
    assert trace(broken) == trace(whole)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_hypernetwork_search_killed_in_every_part_ends_the_same(simulated_job, tmp_path):
    """The driver is killed as soon as a phase is planned, is over, and when children of each part of the search are
    done: all phases come before the first child, and nothing is trained, drawn or counted anew."""
    kind = "shared_dying:HypernetworkDying"
    _, whole = search(real_job(simulated_job, kind, tmp_path / "never", name="whole"))
    assert len(whole.phases()) == 3
    assert all(row.started_at >= whole.phases()[-1].finished_at for row in whole.children() if row.done)
    config = real_job(simulated_job, kind, tmp_path / "never", name="broken")
    journal = f"file:{config.storage_path}/{config.name}/journal.sqlite?mode=ro"
    moments = (
        "SELECT count(*) >= 1 FROM phases",
        "SELECT count(finished_at) >= 2 FROM phases",
        "SELECT count(status) >= 7 FROM children",
        "SELECT count(status) >= 19 FROM children",
    )

    def reached(moment):
        try:  # closed before the next fork, which must not inherit a connection
            with contextlib.closing(sqlite3.connect(journal, uri=True)) as db:
                return bool(db.execute(moment).fetchone()[0])
        except sqlite3.Error:  # the run is being made
            return False

    for moment in moments:
        process = FORK.Process(target=session, args=(config,))
        process.start()
        while process.is_alive() and not reached(moment):
            process.join(0.1)
        if process.is_alive():
            os.killpg(process.pid, signal.SIGKILL)
        process.join()
    outcome, broken = search(config)
    assert outcome.ended == "done"
    assert [row.tokens for row in broken.phases()] == [row.tokens for row in whole.phases()]
    assert [row.result.digest for row in broken.phases()] == [row.result.digest for row in whole.phases()]
    assert trace(broken) == trace(whole)
