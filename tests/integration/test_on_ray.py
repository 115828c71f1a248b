"""The same searches with every part a Ray actor: equal results, lost actors, killed drivers, signals."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from searches import LEARNERS, trace, with_topology

from nas_cluster import job
from nas_cluster.cluster.on_ray.backend import RayBackend
from nas_cluster.cluster.session.stop import Stop
from nas_cluster.cluster.session.supervisor import Supervisor
from nas_cluster.config.loading import write_yaml
from nas_cluster.core.errors import RunStopped
from nas_cluster.retrain import retrain
from nas_cluster.storage.layout import JOURNAL

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

REAL = {
    "space": {"filters": [4, 8], "layers": 2},
    "estimator": {"kind": "train", "epochs": 1, "validation": 200, "crop_padding": 0, "flip": False},
    "budget": {"max_children": 12},
}


def record_of(config):
    return job.load_run(f"{config.storage_path}/{config.name}")


def command(config, tmp_path, address, *arguments):
    """A `nas-cluster run` process of its own, on the shared cluster."""
    path = tmp_path / f"{config.name}.yaml"
    path.write_text(write_yaml(config.to_dict()))
    return subprocess.Popen(
        [sys.executable, "-m", "nas_cluster.cli", "run", str(path), *arguments],
        env={**os.environ, "RAY_ADDRESS": address},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize("learner", ["reinforce", "ppo_control"])
def test_on_ray_a_synchronous_search_equals_the_one_in_process(ray_address, simulated_job, learner):
    changes = LEARNERS[learner]
    many = {"parameter_shards": 3, "replicas_per_actor": 2, "shards_per_actor": 2}
    on_ray = simulated_job(name="on_ray", **with_topology(changes, **many))
    assert job.execute(on_ray).ended == "done"
    in_process = simulated_job(name="in_process", **changes)
    job.execute(in_process, local=True)
    assert trace(record_of(on_ray)) == trace(record_of(in_process))


def test_real_children_on_ray_equal_those_in_process(ray_address, simulated_job):
    on_ray = simulated_job(name="on_ray", **REAL)
    job.execute(on_ray)
    in_process = simulated_job(name="in_process", **REAL)
    job.execute(in_process, local=True)
    assert trace(record_of(on_ray)) == trace(record_of(in_process))
    grid = {"learning_rate": [0.05, 0.1]}
    first = retrain(f"{on_ray.storage_path}/on_ray", top=2, seeds=2, grid=grid)
    assert [result.stage.name for result in first] == ["grid", "retrain"]
    rows = sorted((row for one in first[1].ranked for row in one.rows), key=lambda row: (row.rank, row.seed))
    assert [(row.rank, row.seed) for row in rows] == [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert all(0.05 < row.test_metric <= 1 for row in rows)
    trained = []
    again = retrain(f"{on_ray.storage_path}/on_ray", top=2, seeds=2, grid=grid, on_training=trained.append)
    assert again == first
    assert trained == [], "what was retrained is not trained again"


def test_what_a_child_on_ray_reports_is_in_the_journal_while_it_is_at_work(ray_address, simulated_job):
    estimator = {"reports": 8, "isolated": True, "duration": {"seconds": 6.0}}
    topology = {"parameter_shards": 1, "controller_replicas": 1, "children_per_replica": 2}
    config = simulated_job(name="reports", estimator=estimator, topology=topology, budget={"max_children": 2})
    early = []

    def watch(progress):
        if progress.children_done == 0:
            early.append(record_of(config).curves("accuracy"))

    assert job.execute(config, on_progress=watch).ended == "done"
    assert max(len(curve) for curves in early for curve in curves.values()) >= 2, "some came while nobody was done"
    record = record_of(config)
    for row in record.children():
        if row.cached_from is None:
            assert [report.step for report in record.reports(str(row.child.child_id))] == list(range(1, 9))


def test_lost_shards_and_replicas_come_back_and_change_nothing(ray_address, simulated_job, measured):
    import ray

    slow = {"estimator": {"duration": {"seconds": 0.05}}, "budget": {"max_children": 120}}
    config = simulated_job(name="broken", **slow)
    directory = job.prepare(config)
    backend = RayBackend()
    backend.connect()

    async def scenario():
        supervisor = Supervisor(config, directory, backend)
        run = asyncio.create_task(supervisor.run(Stop()))
        for victim in (0, 2, 3):  # a shard, then replicas
            while len(backend._learners) < 4:
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.7)
            before = [learner.actor for learner in backend._learners]
            ray.kill(before[victim])
            while len(backend._learners) == 4 and not run.done():
                await asyncio.sleep(0.02)
            while len(backend._learners) < 4 and not run.done():
                await asyncio.sleep(0.02)
            new = [learner.actor not in before for learner in backend._learners]
            assert new == [part == victim for part in range(4)], "the others' processes are used again"
        return await run

    outcome = asyncio.run(scenario())
    asyncio.run(backend.close())
    assert outcome.ended == "done"
    broken = record_of(config)
    assert sum(event.kind == "part_lost" for event in broken.events()) == 3
    whole = simulated_job(name="whole", **slow)
    job.execute(whole, local=True)
    assert trace(broken) == trace(record_of(whole))
    measured("a shard, then both replicas killed", "no child trained twice, trace bit-identical")


def test_a_lost_coordinator_stops_the_run_which_then_continues(ray_address, simulated_job):
    import ray

    slow = {"estimator": {"duration": {"seconds": 0.05}}, "budget": {"max_children": 90}}
    config = simulated_job(name="broken", **slow)
    directory = job.prepare(config)
    backend = RayBackend()
    backend.connect()

    async def scenario():
        supervisor = Supervisor(config, directory, backend)
        run = asyncio.create_task(supervisor.run(Stop()))
        while not job.load_run(directory).counts()["done"]:
            await asyncio.sleep(0.1)
        ray.kill(backend._actors[0])
        with pytest.raises(RunStopped, match="the coordinator was lost"):
            await run

    asyncio.run(scenario())
    asyncio.run(backend.close())
    assert 0 < record_of(config).counts()["done"] < 90
    assert job.execute(config, local=True).ended == "done"
    whole = simulated_job(name="whole", **slow)
    job.execute(whole, local=True)
    assert trace(record_of(config)) == trace(record_of(whole))


def test_kill_9_of_the_driver(ray_address, simulated_job, tmp_path, measured):
    slow = {"estimator": {"duration": {"seconds": 0.04}}, "budget": {"max_children": 240}}
    config = simulated_job(name="broken", **slow)
    rng = random.Random(1)
    kills = 0
    for _ in range(4):
        process = command(config, tmp_path, ray_address)
        time.sleep(rng.uniform(3.5, 6.5))
        kills += process.poll() is None
        process.kill()
        process.communicate()
    process = command(config, tmp_path, ray_address)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert kills >= 3
    whole = simulated_job(name="whole", **slow)
    job.execute(whole, local=True)
    assert trace(record_of(config)) == trace(record_of(whole))
    measured("kill -9 of the driver on Ray", f"{kills} kills, trace bit-identical")


def test_a_worker_that_is_killed_is_replaced(ray_address, simulated_job):
    config = simulated_job(
        name="faults",
        estimator={"isolated": True, "faults": {3: "segfault", 8: "exit", 11: "timeout"}},
        failures={"time_limit": 1.0},
        budget={"max_children": 24},
    )
    assert job.execute(config).ended == "done"
    record = record_of(config)
    causes = {row.child.number: row.evaluation.cause for row in record.children() if not row.ok}
    assert causes == {3: "segfault", 8: "exit", 11: "timeout"}


@pytest.mark.parametrize(
    "address,changes,message",
    [
        ("127.0.0.1:1", {}, "RAY_ADDRESS=127.0.0.1:1: nobody answers there"),
        (
            None,
            {"estimator": {"kind": "train"}, "topology": {"resources": {"GPU": 16}}},
            "a child asks for {CPU: 1, GPU: 16}, this cluster has",
        ),
    ],
)
def test_a_cluster_that_is_not_there_or_too_small_is_the_users_error(
    ray_address, simulated_job, tmp_path, address, changes, message
):
    config = simulated_job(name="nowhere", **changes)
    process = command(config, tmp_path, address or ray_address)
    output, _ = process.communicate()
    assert process.returncode == 2
    assert message in output
    assert "Traceback" not in output


@pytest.mark.parametrize("number,code,ended", [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 75, "stopped")])
def test_signals_leave_a_resumable_run(ray_address, simulated_job, tmp_path, measured, number, code, ended):
    slow = {"estimator": {"duration": {"seconds": 0.3}}, "budget": {"max_children": 600}}
    config = simulated_job(name="stopped", **slow)
    process = command(config, tmp_path, ray_address)
    while not (tmp_path / "stopped" / JOURNAL).exists() or record_of(config).counts()["done"] < 6:
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    started = time.monotonic()
    process.send_signal(number)
    output, _ = process.communicate()
    seconds = time.monotonic() - started
    assert seconds < 10
    assert process.returncode == code, output
    measured(number.name, f"exit code {code} after {seconds:.1f} s")
    assert "nas-cluster resume" in output
    record = record_of(config)
    assert record.state() == ended
    done = record.counts()["done"]
    smaller = simulated_job(name="stopped", estimator=slow["estimator"], budget={"max_children": done + 6})
    assert job.execute(smaller, local=True).ended == "done"
    assert record_of(config).counts()["done"] >= done + 6


def test_a_second_interrupt_does_not_wait_for_children(ray_address, simulated_job, tmp_path, measured):
    long = {"estimator": {"duration": {"seconds": 600}}, "failures": {"stop_grace": 600}}
    config = simulated_job(name="hurried", **long, budget={"max_children": 600})
    process = command(config, tmp_path, ray_address)
    while not (tmp_path / "hurried" / JOURNAL).exists() or record_of(config).counts()["planned"] < 6:
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=3)
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate()
    seconds = time.monotonic() - started
    assert seconds < 10
    assert process.returncode == 130, output
    measured("SIGINT twice", f"exit code 130, {seconds:.1f} s after the second")
    assert record_of(config).state() == "interrupted"
