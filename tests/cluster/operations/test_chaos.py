"""The injector: what it strikes, what it calls noticed, and its account, on runs whose journals the test writes."""

import threading
import time

import pytest
from searches import search

from nas_cluster import job
from nas_cluster.cluster.operations import chaos
from nas_cluster.cluster.operations.chaos import FAULTS, _strike, audit, check_faults, inject
from nas_cluster.core.errors import ConfigError, RunError
from nas_cluster.core.seeds import stream
from nas_cluster.storage.journal import Journal


class Recorded:
    """Targets that only write down what was done to them."""

    def __init__(self, workers=("worker-0", "worker-1"), nodes=("aa", "bb"), processes=True):
        self.workers, self.others, self.processes = list(workers), list(nodes), processes
        self.done = []

    def parts(self, role):
        return self.workers if role == "worker" else [f"{role}-0"]

    def nodes(self):
        return self.others

    def kill(self, part):
        self.done.append(("kill", part))

    def kill_child(self, worker):
        self.done.append(("kill_child", worker))
        return self.processes

    def drain(self, node):
        self.done.append(("drain", node))

    def stop(self, node):
        self.done.append(("stop", node))


def strikes(seed, count=60, faults=FAULTS):
    chance, targets = stream(seed, "chaos"), Recorded()
    return [_strike(targets, faults, chance) for _ in range(count)], targets


def test_faults_are_chosen_by_seed_and_all_of_them_come():
    first, targets = strikes(1)
    assert first == strikes(1)[0] != strikes(2)[0]
    assert {fault for fault, _ in first} == set(FAULTS)
    assert {what for what, _ in targets.done} == {"kill", "kill_child", "drain", "stop"}
    assert {fault for fault, _ in strikes(1, faults=["shard"])[0]} == {"shard"}


def test_what_has_no_target_is_passed_over():
    chance = stream(0, "chaos")
    for _ in range(10):
        assert _strike(Recorded(nodes=()), ["node_stop", "worker"], chance)[0] == "worker"
        assert _strike(Recorded(processes=False), ["child", "shard"], chance) == ("shard", "shard-0")
        assert _strike(Recorded(nodes=()), ["node_stop"], chance) is None


def test_a_wrong_fault_is_refused_with_the_nearest():
    assert check_faults(["worker", "child"]) == ["child", "worker"]
    with pytest.raises(ConfigError, match="did you mean 'replica'"):
        check_faults(["replicas"])


def test_a_run_that_is_not_running_is_refused(simulated_job, tmp_path):
    search(simulated_job(name="over"))
    with pytest.raises(RunError, match="is not running"):
        inject(tmp_path / "over", Recorded(), seed=0, minutes=1)


def test_the_account_of_a_finished_run(simulated_job, tmp_path):
    _, record = search(simulated_job(name="whole"))
    account = audit(record)
    assert (account.pop("planned"), account.pop("done")) == (60, 60)
    assert set(account.values()) == {0}


def test_noticing_is_read_from_the_journal(simulated_job, tmp_path, monkeypatch):
    """A writer that loses a worker half a second after each fault and goes on half a second later."""
    config = simulated_job(name="broken", budget={"max_children": 30})
    search(config)
    targets, over = Recorded(), threading.Event()

    def write():
        with Journal.open(tmp_path / "broken") as journal:
            seen = 0
            while not over.wait(0.02):
                if len(targets.done) > seen:
                    seen += 1
                    time.sleep(0.5)
                    journal.event("worker_lost", worker=0)
                    time.sleep(0.5)
                    counted.append(seen)

    counted = []
    counts = chaos.RunRecord.counts
    monkeypatch.setattr(chaos.RunRecord, "counts", lambda self: {**counts(self), "done": 30 + len(counted)})
    writer = threading.Thread(target=write)
    writer.start()
    try:
        while job.load_run(tmp_path / "broken").sessions()[-1].ended is not None:
            time.sleep(0.02)
        report = inject(tmp_path / "broken", targets, seed=0, minutes=0.045, every=0.6, faults=["worker"])
    finally:
        over.set()
        writer.join()
    assert len(report.injected) >= 2
    for injected in report.injected:
        assert injected.fault == "worker"
        assert 0.4 < injected.noticed < injected.went_on
    assert report.to_json()["account"]["planned"] == 30
