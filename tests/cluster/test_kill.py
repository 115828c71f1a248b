"""`kill -9` of the driver at random moments: nothing committed is lost or counted twice, and synchronous searches come
out bit-identical. Every part runs in one forked process, so a kill takes all of them at once, at any instruction."""

import multiprocessing
import os
import random
import signal
import time

import pytest

from nas_cluster import job
from nas_cluster.storage.layout import SNAPSHOTS
from nas_cluster.storage.snapshots import SnapshotStore

from test_search_in_process import trace  # isort: skip

pytestmark = pytest.mark.slow
FORK = multiprocessing.get_context("fork")


def session(config):
    os.setsid()
    job.execute(config, local=True)


def run_with_kills(config, kills, longest):
    """Start the job again and again, killing it after a random time, until `kills` kills; then let it finish."""
    rng = random.Random(0)
    done = 0
    while done < kills:
        process = FORK.Process(target=session, args=(config,))
        process.start()
        process.join(rng.uniform(0, longest))
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            done += 1
        else:
            assert process.exitcode == 0
            break
    process = FORK.Process(target=session, args=(config,))
    process.start()
    process.join()
    assert process.exitcode == 0
    return done, job.load_run(f"{config.storage_path}/{config.name}")


@pytest.mark.timeout(180)
def test_a_synchronous_search_killed_100_times_equals_an_unbroken_one(simulated_job):
    budget = {"budget": {"max_children": 3600}, "estimator": {"duration": {"seconds": 0.002, "sigma": 0.5}}}
    job.execute(simulated_job(name="whole", **budget), local=True)
    whole = job.load_run(f"{simulated_job().storage_path}/whole")
    kills, broken = run_with_kills(simulated_job(name="broken", **budget), 100, 0.25)
    assert kills == 100, "the search ended before it was killed often enough"
    assert trace(broken) == trace(whole)
    assert broken.counts()["done"] == 3600
    assert len(broken.sessions()) > 20


@pytest.mark.timeout(180)
def test_an_asynchronous_search_killed_50_times_counts_everything_once(simulated_job, tmp_path):
    config = simulated_job(
        name="broken",
        mode="asynchronous",
        topology={"controller_replicas": 4, "max_staleness": 5},
        estimator={"duration": {"seconds": 0.003, "sigma": 1.0}},
        budget={"max_children": 2400},
    )
    kills, record = run_with_kills(config, 50, 0.3)
    assert kills == 50
    assert sorted(row.child.number for row in record.children()) == list(range(2400))
    assert all(row.done for row in record.children())
    assert all(b.applied_at is not None for b in record.batches())
    (_, _, meta), _ = SnapshotStore(tmp_path / "broken" / SNAPSHOTS).newest_good(record.snapshots())
    for shard in meta["shards"]:
        assert shard["adam_updates"] == len(record.batches())


@pytest.mark.timeout(120)
def test_real_training_killed_in_the_middle_comes_out_the_same(simulated_job):
    real = {
        "space": {"filters": [4, 8], "layers": 2},
        "estimator": {"kind": "train", "epochs": 1, "validation": 200, "crop_padding": 0, "flip": False},
        "budget": {"max_children": 12},
    }
    job.execute(simulated_job(name="whole", **real), local=True)
    whole = job.load_run(f"{simulated_job().storage_path}/whole")
    config = simulated_job(name="broken", **real)
    for seconds in (3.0, 4.5):
        process = FORK.Process(target=session, args=(config,))
        process.start()
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
    job.execute(config, local=True)
    assert trace(job.load_run(f"{config.storage_path}/broken")) == trace(whole)
