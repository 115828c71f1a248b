"""`kill -9` of the driver at random moments: nothing committed is lost or counted twice, and synchronous searches come
out bit-identical. Every part runs in one forked process, so a kill takes all of them at once, at any instruction."""

import os
import random
import signal
import time

import pytest
import tensorboard.compat.proto.summary_pb2  # noqa: F401  (imported here once, and not in every forked session)
import torch  # noqa: F401
from searches import FORK, LEARNERS, gradients, session, trace, with_topology

from nas_cluster import job
from nas_cluster.storage.layout import SNAPSHOTS
from nas_cluster.storage.snapshots import SnapshotStore

pytestmark = pytest.mark.slow


def kill_until_done(config, rng, longest):
    """Start the job again and again, killing it after a random time, until a session gets through; how many kills."""
    kills = 0
    while True:
        process = FORK.Process(target=session, args=(config,))
        process.start()
        process.join(rng.uniform(0, longest))
        if not process.is_alive():
            assert process.exitcode == 0
            return kills
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        kills += 1
        longest *= 1.05  # on a machine that has become slower a session must still get somewhere


def unbroken(config):
    """Run a whole session in a process of its own; a quarter of its seconds, within which kills come whatever the speed
    of the machine."""
    started = time.monotonic()
    process = FORK.Process(target=session, args=(config,))
    process.start()
    process.join()
    assert process.exitcode == 0
    return (time.monotonic() - started) / 4


def record_of(config):
    return job.load_run(f"{config.storage_path}/{config.name}")


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "learner,least,children",
    [
        ("reinforce", 50, 360),
        ("ppo", 20, 150),
        ("ppo_control", 20, 80),
        ("evolution", 20, 600),
        pytest.param("reinforce", 200, 360, marks=pytest.mark.soak, id="reinforce-200"),
    ],
)
def test_synchronous_searches_killed_many_times_equal_an_unbroken_one(
    simulated_job, measured, learner, least, children
):
    duration = {"duration": {"seconds": 0.002, "sigma": 0.5}}
    changes = {"budget": {"max_children": children}, "estimator": duration, **LEARNERS[learner]}
    whole = simulated_job(name="whole", **changes)
    longest = unbroken(whole)
    rng, kills, runs = random.Random(0), 0, 0
    while kills < least:
        runs += 1  # a quick session may get through before it is killed
        broken = simulated_job(name=f"broken-{runs}", **changes)
        kills += kill_until_done(broken, rng, longest)
        assert trace(record_of(broken)) == trace(record_of(whole))
        assert record_of(broken).counts()["done"] == children
        assert not record_of(broken).events()
    measured(f"kill -9 of the driver, synchronous, {learner}", f"{kills} kills, every continuation bit-identical")


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "learner,least,children",
    [
        ("reinforce", 30, 360),
        ("ppo", 20, 150),
        ("ppo_control", 20, 80),
        ("evolution_control", 20, 600),
        pytest.param("reinforce", 100, 360, marks=pytest.mark.soak, id="reinforce-100"),
    ],
)
def test_asynchronous_searches_killed_many_times_count_everything_once(
    simulated_job, tmp_path, measured, learner, least, children
):
    changes = {
        "mode": "asynchronous",
        "estimator": {"duration": {"seconds": 0.003, "sigma": 1.0}},
        "budget": {"max_children": children},
        **with_topology(LEARNERS[learner], controller_replicas=4, max_staleness=5),
    }
    longest = unbroken(simulated_job(name="whole", **changes))
    rng, kills, runs = random.Random(1), 0, 0
    while kills < least:
        runs += 1  # a quick session may get through before it is killed
        config = simulated_job(name=f"broken-{runs}", **changes)
        kills += kill_until_done(config, rng, longest)
        record = record_of(config)
        assert sorted(row.child.number for row in record.children()) == list(range(children))
        assert all(row.done for row in record.children())
        assert all(b.applied_at is not None and b.staleness <= 5 for b in record.batches())
        assert {b.learning_epochs for b in record.batches()} == {config.strategy.learning_epochs}
        (_, _, meta), _ = SnapshotStore(tmp_path / config.name / SNAPSHOTS).newest_good(record.snapshots())
        for shard in meta["shards"]:
            assert shard["adam_updates"] == gradients(config, record)
    stalest = max(batch.staleness for batch in record.batches())
    account = f"{kills} kills, all children once, staleness at most {stalest} of 5"
    measured(f"kill -9 of the driver, asynchronous, {learner}", account)


@pytest.mark.timeout(600)
def test_real_training_killed_in_the_middle_comes_out_the_same(simulated_job):
    real = {
        "space": {"filters": [4, 8], "layers": 2},
        "estimator": {"kind": "train", "epochs": 1, "validation": 200, "crop_padding": 0, "flip": False},
        "budget": {"max_children": 12},
    }
    whole = simulated_job(name="whole", **real)
    job.execute(whole, local=True)
    config = simulated_job(name="broken", **real)
    for seconds in (3.0, 4.5):
        process = FORK.Process(target=session, args=(config,))
        process.start()
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
    job.execute(config, local=True)
    assert trace(record_of(config)) == trace(record_of(whole))
