"""The fault injector against real searches on the shared Ray cluster, started and struck from the command line."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from searches import trace

from nas_cluster import job
from nas_cluster.cluster.operations.chaos import audit
from nas_cluster.config.loading import write_yaml
from nas_cluster.storage.layout import JOURNAL

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SOAK_MINUTES = float(os.environ.get("NAS_CLUSTER_SOAK_MINUTES", "30"))

ISOLATED = {
    "estimator": {"isolated": True, "duration": {"seconds": 0.2}},
    "topology": {"resources": {"CPU": 0.5}},
    "failures": {"retries": 50, "max_restarts": 10_000},
    "cache": False,
}


def start(config, tmp_path, address, *arguments):
    path = tmp_path / f"{config.name}.yaml"
    path.write_text(write_yaml(config.to_dict()))
    return cli(address, "run", str(path), *arguments)


def cli(address, *arguments):
    output = tempfile.TemporaryFile("w+")  # noqa: SIM115  (a pipe would fill, and stop what prints)
    process = subprocess.Popen(
        [sys.executable, "-m", "nas_cluster.cli", *arguments],
        env={**os.environ, "RAY_ADDRESS": address},
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    process.output = output
    return process


def said(process, seconds=None):
    """What it printed, once it has ended."""
    process.wait(seconds)
    process.output.seek(0)
    return process.output.read()


def wait_done(process, directory, count, seconds=240):
    deadline = time.monotonic() + seconds
    while not (directory / JOURNAL).exists() or job.load_run(directory).counts()["done"] < count:
        assert process.poll() is None, said(process)
        assert time.monotonic() < deadline
        time.sleep(0.2)


def strike(address, directory, *options):
    """The report of `nas-cluster chaos`."""
    chaos = cli(address, "chaos", str(directory), "--json", *options)
    output = said(chaos)
    assert chaos.returncode == 0, output
    return json.loads(output[output.index("{") :])


def finish(process, config, tmp_path):
    """Stop the search, let it end with what it has planned, and give its account."""
    process.send_signal(signal.SIGTERM)
    output = said(process, 120)
    assert process.returncode in (0, 75), output
    directory = tmp_path / config.name
    planned = job.load_run(directory).counts()["planned"]
    ending = config.model_copy(update={"budget": config.budget.model_copy(update={"max_children": planned})})
    assert job.execute(ending, local=True).ended == "done"
    return audit(job.load_run(directory))


def once(account):
    kept = ("planned", "done", "duplicates_refused")
    return account["planned"] == account["done"] and not any(v for key, v in account.items() if key not in kept)


@pytest.mark.timeout(600)
def test_a_search_survives_the_injector(ray_address, simulated_job, tmp_path, measured):
    config = simulated_job(name="struck", **ISOLATED, budget={"max_children": 5000})
    process = start(config, tmp_path, ray_address)
    wait_done(process, tmp_path / "struck", 6)
    report = strike(ray_address, tmp_path / "struck", "--seed", "3", "--minutes", "0.6", "--every", "6")
    account = finish(process, config, tmp_path)
    kinds = {injected["fault"] for injected in report["injected"]}
    slowest = max(injected["noticed"] or 0 for injected in report["injected"])
    measured("chaos", f"{len(report['injected'])} faults of {sorted(kinds)}, noticed within {slowest:.1f} s, {account}")
    assert len(report["injected"]) >= 2
    assert all(injected["went_on"] is not None for injected in report["injected"])
    assert once(account), account


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_shard_killed_20_times(ray_address, simulated_job, tmp_path, measured):
    """In synchronous mode any silent reset, lost or repeated gradient would show in the trace."""
    slow = {"estimator": {"duration": {"seconds": 0.2}}, "failures": {"max_restarts": 100}}
    config = simulated_job(name="shards", **slow, budget={"max_children": 100_000})
    process = start(config, tmp_path, ray_address)
    directory = tmp_path / "shards"
    wait_done(process, directory, 6)
    struck = []
    while len(struck) < 20:
        options = ["--seed", str(len(struck)), "--minutes", "2", "--every", "3", "--faults", "shard"]
        struck += strike(ray_address, directory, *options)["injected"]
    account = finish(process, config, tmp_path)
    whole = simulated_job(name="whole", **slow, budget={"max_children": account["planned"]})
    job.execute(whole, local=True)
    back = [injected["went_on"] for injected in struck]
    measured(
        "shard killed", f"{len(struck)} times, back and a child committed after {max(back):.1f} s at most, {account}"
    )
    assert once(account), account
    assert trace(job.load_run(directory)) == trace(job.load_run(tmp_path / "whole"))
    assert max(back) < 10


@pytest.mark.soak
@pytest.mark.timeout(SOAK_MINUTES * 60 + 1800)
def test_a_soak_of_random_faults(ray_address, simulated_job, tmp_path, measured):
    """NAS_CLUSTER_SOAK_MINUTES says how long; default 30. A random fault every 20 s."""
    config = simulated_job(name="soak", **ISOLATED, mode="asynchronous", budget={"max_children": 10_000_000})
    process = start(config, tmp_path, ray_address)
    directory = tmp_path / "soak"
    wait_done(process, directory, 6)
    chaos = cli(ray_address, "chaos", str(directory), "--json", "--seed", "0", "--minutes", str(SOAK_MINUTES))
    times, sizes = [], []
    started = time.monotonic()
    coordinator = coordinator_of(directory)
    while chaos.poll() is None:
        times.append((time.monotonic() - started) / 60)
        sizes.append(resident_mb(process.pid) + resident_mb(coordinator))
        time.sleep(2)
    output = said(chaos)
    assert chaos.returncode == 0, output
    report = json.loads(output[output.index("{") :])
    account = finish(process, config, tmp_path)
    settled = len(times) // 4
    growth = np.polyfit(times[settled:], sizes[settled:], 1)[0]
    noticed = [injected["noticed"] for injected in report["injected"] if injected["noticed"] is not None]
    measured(
        f"soak of {SOAK_MINUTES:g} minutes",
        f"{len(report['injected'])} faults, noticed within {max(noticed):.1f} s, memory of driver and coordinator "
        f"{growth:+.2f} MB a minute, {account}",
    )
    assert once(account), account
    assert all(injected["went_on"] is not None for injected in report["injected"])
    assert len(report["injected"]) > 2.5 * SOAK_MINUTES
    assert growth < 1.0


def resident_mb(pid):
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def coordinator_of(directory):
    """The process id of a run's coordinator; this test session is connected to the same cluster."""
    from nas_cluster.cluster.operations.targets import RayTargets

    return RayTargets(directory).where("coordinator-0")[1]
