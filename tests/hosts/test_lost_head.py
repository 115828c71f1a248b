"""The head is lost, and the driver with it: the run goes on on a new cluster of another size, from shared storage."""

import time

import pytest
from ray_hosts import RayHosts
from simulated_hosts import Network

from nas_cluster import job
from nas_cluster.storage.mirror import Mirror

pytestmark = [pytest.mark.ray, pytest.mark.soak, pytest.mark.timeout(1200)]


def test_the_head_is_lost(can_simulate_hosts, simulated_job, tmp_path, measured):
    shared = tmp_path / "shared"
    changes = {
        "estimator": {"isolated": True, "duration": {"seconds": 0.3}},
        "budget": {"max_children": 90},
        "topology": {"snapshot_every": 1},
    }
    config = simulated_job(name="moved", **changes, storage_path=shared.as_uri())
    with Network(3, tmp_path / "first") as network:
        cluster = RayHosts(network, tmp_path)
        cluster.start()
        search = cluster.search(config)
        deadline = time.monotonic() + 300
        while len(list(shared.glob("moved/manifest-*"))) < 3:
            assert search.process.poll() is None, search.text()
            assert time.monotonic() < deadline, search.text()
            time.sleep(0.2)
        cluster.head.power_off()
        lost_at = time.monotonic()
    with Network(2, tmp_path / "second") as network:
        cluster = RayHosts(network, tmp_path, cpus=3)
        cluster.start()
        search = cluster.search(config)
        assert search.finish(600) == 0, search.text()
        seconds = time.monotonic() - lost_at
    Mirror(config.storage_path, config.name).pull(tmp_path / "result")
    record = job.load_run(tmp_path / "result")
    numbers = sorted(row.child.number for row in record.children() if row.done)
    before = [row.term for row in record.sessions()]
    account = f"{len(numbers)} of 90 children once, {len(before)} sessions"
    measured("head lost", f"2 nodes instead of 3, {account}, done {seconds:.0f} s later, the cluster's start included")
    assert numbers == list(range(90))
    assert len(before) == 2
