"""A user's job on a cluster of several hosts that wants a token: submitted, followed, stopped, resumed."""

import json
import re
import secrets
import sys
import time

import pytest
from ray_hosts import METRICS_PORT, RayHosts
from simulated_hosts import Network
from waiting import wait_for

from nas_cluster import job
from nas_cluster.config.loading import write_yaml
from nas_cluster.storage.mirror import Mirror

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

SPACE = """
from nas_cluster.spaces.layerwise_cnn import LayerwiseCNN

class Mine(LayerwiseCNN):
    pass
"""
PATIENCE = 300.0
HIDDEN = ("RAY_AUTH_MODE", "RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


class User:
    """Somebody on a host that is no node of the cluster: a config, a space of their own, and the cluster's token."""

    def __init__(self, host, cluster, config):
        self.host, self.url = host, cluster.url
        self.folder = host.folder / "here"
        self.folder.mkdir()
        (self.folder / "my_space.py").write_text(SPACE)
        data = config.to_dict()
        data["space"]["kind"] = "my_space:Mine"
        (self.folder / "job.yaml").write_text(write_yaml(data))
        self.environment = {k: v for k, v in cluster.environment(host).items() if k not in HIDDEN}

    def start(self, *arguments):
        output = self.folder / f"{arguments[0]}-{time.monotonic_ns()}.log"
        unset = [word for name in HIDDEN for word in ("-u", name)]
        command = [sys.executable, "-m", "nas_cluster.cli", *arguments, "--address", self.url]
        environed = ["env", "-C", str(self.folder), *unset, *command]
        return self.host.start(environed, self.environment, output), output

    def call(self, *arguments):
        process, output = self.start(*arguments)
        code = process.wait(PATIENCE)
        return code, output.read_text()


def children_done(log):
    return max(
        (int(number) for number in re.findall(r"^job: (\d+)\S* children done", log.read_text(), re.M)), default=0
    )


def get(host, url, token=""):
    """A page as this host sees it."""
    done = host.run([sys.executable, "-c", GET, url], {"TOKEN": token, "no_proxy": "*"})
    assert done.returncode == 0, done.stderr
    return done.stdout


GET = """
import os, sys, urllib.request as r
asked = r.Request(sys.argv[1], headers={"Authorization": "Bearer " + os.environ["TOKEN"]})
print(r.urlopen(asked, timeout=30).read().decode())
"""


def gauges(host):
    """{(name, tag, ...): value} of the run's metrics at a node's own exporter."""
    said = get(host, f"http://{host.address}:{METRICS_PORT}/metrics")
    found = re.findall(r"^ray_nas_cluster_(\w+)\{(.*?)\} (\S+)$", said, re.M)
    return {
        (name, *(f"{k}={v}" for k, v in re.findall(r'(state|of|shard)="(.*?)"', tags))): float(value)
        for name, tags, value in found
        if 'run="job"' in tags
    }


def test_a_job_goes_on_on_a_cluster_with_one_node_more(can_simulate_hosts, simulated_job, tmp_path, measured):
    shared = tmp_path / "shared"
    config = simulated_job(
        mode="asynchronous",
        estimator={"isolated": True, "duration": {"seconds": 0.3, "sigma": 0.0}},
        topology={"snapshot_every": 2, "slots": 2},
        budget={"max_children": 99_999},
        storage_path=shared.as_uri(),
        cache=False,
    )
    token = secrets.token_hex(32)
    with Network(4, tmp_path) as network:
        *hosts, users = network.hosts
        cluster = RayHosts(network, tmp_path, token=token)
        first, second = hosts[1:]
        cluster.start_ray(cluster.head)
        cluster.start_ray(first)
        user = User(users, cluster, config)

        started = time.monotonic()
        code, output = user.call("submit", "job.yaml")
        assert code == 0, output
        assert "with my_space.py" in output
        assert f"submitted job to {cluster.url} as job job@1" in output
        assert user.call("submit", "job.yaml") == (2, "nas-cluster: job: runs already as job job@1 (running)\n")
        follower, log = user.start("logs", "job", "-f")
        wait_for(lambda: children_done(log) >= 12, "12 children in the log")
        under_way = time.monotonic() - started
        assert cluster.running(first, "cluster.children.main")
        wait_for(lambda: ("entropy",) in gauges(cluster.head), "metrics")
        seen = gauges(cluster.head)
        assert seen["children", "state=done"] > 0
        assert 0 <= seen["slot_utilisation",] <= 1
        assert {("shard_version", "shard=0"), ("shard_version", "shard=1"), ("reward", "of=best")} <= set(seen)
        assert {("baseline",), ("staleness",), ("cache_hits",), ("gpu_seconds",), ("cpu_seconds",)} <= set(seen)
        code, output = user.call("status", "job")
        assert code == 0, output
        assert "running" in output
        assert "children done" in output

        started = time.monotonic()
        code, output = user.call("stop", "job")
        stopped = time.monotonic() - started
        assert code == 0, output
        assert "stopped: SIGTERM received" in output
        assert "continue: nas-cluster resume job" in output
        assert follower.wait(PATIENCE) == 0
        code, output = user.call("status", "job", "--json")
        assert json.loads(output)["exit_code"] == 75
        assert json.loads(output)["resumable"] is True
        Mirror(config.storage_path, config.name).pull(tmp_path / "stopped")
        before = job.load_run(tmp_path / "stopped").counts()
        assert before["done"] >= 12

        cluster.start_ray(second)
        in_all = before["planned"] + 30  # those that were in flight are trained again
        follower, log = user.start("resume", "job", "topology.slots=4", f"budget.max_children={in_all}", "--follow")
        wait_for(
            lambda: cluster.running(second, "cluster.children.main") or follower.poll() is not None,
            "child on the new node",
        )
        assert follower.wait(PATIENCE) == 0, log.read_text()
        assert "is shared by 3 node(s)" in log.read_text()
        assert f"done: {in_all} children" in log.read_text()
        code, output = user.call("list")
        assert re.search(r" 2 +succeeded +job$", output, re.M), output

        metadata = get(users, f"{cluster.url}/api/jobs/", token)
        assert "job@2" in metadata
        assert token not in metadata, "no token in a job's metadata"
    Mirror(config.storage_path, config.name).pull(tmp_path / "result")
    record = job.load_run(tmp_path / "result")
    children = record.children()
    assert sorted(row.child.number for row in children) == list(range(in_all)), "every child once"
    assert all(row.ok for row in children)
    assert [session.ended for session in record.sessions()] == ["stopped", "done"]
    assert not any(event.kind in ("child_retried", "worker_lost", "part_lost") for event in record.events())
    applied = [batch for batch in record.batches() if batch.applied_at is not None]
    assert len(applied) == len(record.batches()) == in_all / 3
    measured(
        "a job on two hosts, resumed on three",
        f"12 children {under_way:.0f} s after submit, stopped in {stopped:.1f} s, {in_all} children once",
    )
    places = [path for path in tmp_path.rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(places) > 20
    kept = {host.folder / "home" / ".ray" / "auth_token" for host in network.hosts}
    told = [str(path) for path in places if path not in kept and token.encode() in path.read_bytes()]
    assert told == [], "no token in any file"
    assert all(path.stat().st_mode & 0o077 == 0 for path in kept)
