"""What a cluster that `ray start` made, with token authentication, says to jobs: what waits, what is refused, and why.

A job's whole way, over several hosts, is in `tests/hosts/test_jobs_on_hosts.py`."""

import contextlib
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from waiting import wait_for

from nas_cluster import job
from nas_cluster.config.loading import write_yaml

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1800)]

SPACE = """
from nas_cluster.spaces.layerwise_cnn import LayerwiseCNN

class Mine(LayerwiseCNN):
    pass
"""
RAY = """
from ray._private import ray_constants, services
ray_constants.ENABLE_RAY_CLUSTER = True
services.get_node_ip_address = lambda address=None: "127.0.0.1"
from ray.scripts.scripts import main
main()
"""
"""`ray` that lets several nodes be on loopback."""
PATIENCE = 600.0
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="a second node on one machine needs a mount of its own")
TRIES = 4
"""Ray gives a node 30 s to start, which is too little on a machine that has other work."""


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def forward(port):
    """A port that leads to `port`, as `kubectl port-forward` and `ssh -L` make one."""

    def pump(source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def carry(one):
        with one, contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as other:
            back = threading.Thread(target=pump, args=(other, one), daemon=True)
            back.start()
            pump(one, other)
            back.join()

    def serve():
        while True:
            threading.Thread(target=carry, args=(listener.accept()[0],), daemon=True).start()

    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=serve, daemon=True).start()
    return listener.getsockname()[1]


class Cluster:
    """A head (and further nodes) on loopback in folders of their own, spoken to through a port-forward; only its own
    processes are ended."""

    def __init__(self, folder):
        self.folder = folder
        self.token = secrets.token_hex(32)
        home = folder / "home"
        (home / ".ray").mkdir(parents=True)
        (home / ".ray" / "auth_token").write_text(self.token)
        (home / ".ray" / "auth_token").chmod(0o600)
        self.gcs, self.dashboard, self.metrics, self.agent, self.client = free_ports(5)
        self.url = f"http://127.0.0.1:{forward(self.dashboard)}"
        hidden = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
        self.environment = {
            **{name: value for name, value in os.environ.items() if name not in hidden},
            "HOME": str(home),
            "XDG_CACHE_HOME": str(home / ".cache"),
            "RAY_AUTH_MODE": "token",
            "RAY_TMPDIR": str(folder),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",
            "PYTHONPATH": str(Path(job.__file__).parents[1]),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }

    def start_head(self):
        self.start(
            *("--head", f"--port={self.gcs}", "--dashboard-host=127.0.0.1", f"--dashboard-port={self.dashboard}"),
            *(f"--metrics-export-port={self.metrics}", f"--dashboard-agent-listen-port={self.agent}"),
            *(f"--ray-client-server-port={self.client}", f"--temp-dir={self.folder}/ray", "--num-cpus=2"),
            *("--min-worker-port=0", "--max-worker-port=0"),
        )

    def start(self, *options, wrapper=()):
        command = [
            *wrapper,
            sys.executable,
            "-c",
            RAY,
            "start",
            "--node-ip-address=127.0.0.1",
            "--disable-usage-stats",
            *options,
        ]
        for _ in range(TRIES):
            started = subprocess.run(command, env=self.environment, capture_output=True, text=True, cwd=self.folder)
            if "timed out during startup" not in started.stderr:
                break
            if "--head" in options:
                self.end()
        assert started.returncode == 0, started.stdout + started.stderr
        wait_for(self.answers, "dashboard")

    def answers(self):
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.dashboard), timeout=5).close()
            return True
        return False

    def add_node(self, *options):
        """A node on the same machine. It unpacks what a job carries in a place of its own: Ray would unpack it over the
        first node's, whose processes then stand in a folder that is gone."""
        agent, metrics = free_ports(2)
        place = (self.folder / "ray" / "session_latest").resolve() / "runtime_resources"
        self.start(
            *(f"--address=127.0.0.1:{self.gcs}", f"--dashboard-agent-listen-port={agent}"),
            *(f"--metrics-export-port={metrics}", "--min-worker-port=0", "--max-worker-port=0", *options),
            wrapper=("unshare", "--mount", "sh", "-c", f'mount -t tmpfs tmpfs {place} && exec "$@"', "sh"),
        )

    def end(self):
        """Kill what was started with this cluster's folder in its environment, and nothing else."""
        mark = f"RAY_TMPDIR={self.folder}".encode()
        for place in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (place / "environ").read_bytes().split(b"\0"):
                    os.kill(int(place.name), signal.SIGKILL)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    made = Cluster(tmp_path_factory.mktemp("r", numbered=True))
    try:
        made.start_head()
        yield made
    finally:
        made.end()


@pytest.fixture
def here(tmp_path, cluster, simulated_job):
    """A user's folder: a config, a space of their own. Calls `nas-cluster` in it."""
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "my_space.py").write_text(SPACE)

    def config(**changes):
        made = simulated_job(
            **{
                "estimator": {"duration": {"seconds": 0.5, "sigma": 0.0}},
                "storage_path": str(tmp_path / "shared"),
                "cache": False,
                **changes,
            }
        ).to_dict()
        made["space"]["kind"] = "my_space:Mine"
        (folder / f"{made['name']}.yaml").write_text(write_yaml(made))
        return f"{made['name']}.yaml"

    class User:
        make = staticmethod(config)
        storage = tmp_path / "shared"

        @staticmethod
        def popen(*arguments, **environment):
            return subprocess.Popen(
                [sys.executable, "-m", "nas_cluster.cli", *map(str, arguments)],
                env={**cluster.environment, **environment},
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )

        @staticmethod
        def call(*arguments, **environment):
            process = User.popen(*arguments, **environment)
            output, _ = process.communicate(timeout=PATIENCE)
            return process.returncode, output

    return User


@needs_root
def test_children_wait_for_a_node_with_their_labels_as_a_request_that_an_autoscaler_sees(cluster, here):
    children = {"CPU": 0.5, "GPU": 0.5, "label_selector": {"pool": "cards"}}
    config = here.make(
        name="cards",
        estimator={"isolated": True, "duration": {"seconds": 0.01}},
        topology={"resources": children, "slots": 2},
        budget={"max_children": 12},
    )
    code, output = here.call("submit", config, "--address", cluster.url)
    assert code == 0, output
    address = f"--address=127.0.0.1:{cluster.gcs}"

    def demands():
        said = subprocess.run(
            ["ray", "status", address], env=cluster.environment, capture_output=True, text=True
        ).stdout
        return re.search(r"\{.*'GPU': 0.5.*\}: 2\+ pending", said)

    wait_for(demands, "demand for GPUs")
    waits = "cards: waiting for 2 of 2 workers: {CPU: 0.5, GPU: 0.5} on nodes with {pool: cards} each"
    wait_for(lambda: waits in here.call("logs", "cards", "--address", cluster.url)[1], "word of what it waits for")
    assert job.load_run(here.storage / "cards").counts()["done"] == 0
    cluster.add_node("--num-cpus=1", "--num-gpus=1", "--labels=pool=cards")
    code, output = here.call("logs", "cards", "-f", "--address", cluster.url)
    assert code == 0, output
    assert "done: 12 children" in output
    assert output.count("waiting for") == 1
    assert sum(event.kind == "workers_awaited" for event in job.load_run(here.storage / "cards").events()) == 1


def test_without_the_token_nothing_is_told(cluster, here, tmp_path):
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{cluster.url}/api/jobs/", timeout=30)
    for token, words in (("", "couldn't find an authentication token"), ("0" * 64, "Authentication failed")):
        code, output = here.call(
            *("list", "--address", cluster.url),
            **{"HOME": str(tmp_path), "RAY_AUTH_TOKEN": token, "RAY_AUTH_MODE": "token"},
        )
        assert code == 2, output
        assert words in output
        assert "RAY_AUTH_TOKEN" in output
        assert "Traceback" not in output


def test_doctor(cluster, here):
    code, output = here.call("doctor", here.make(topology={"slots": 5}), "--address", cluster.url)
    assert code == 0, output
    for words in ("a token is wanted", "is shared by", "5 children at once of 5 wanted", "here and on every node"):
        assert words in output
    code, output = here.call("doctor", RAY_ADDRESS=f"127.0.0.1:{cluster.gcs}")
    assert code == 0, output
    assert "a token is wanted" in output
    code, output = here.call("list", "--address", cluster.url)
    assert "doctor" not in output


REFUSED = {
    "a folder of this machine": ({"storage_path": "runs"}, "storage_path: 'runs' is a folder of this machine"),
    "what every node has for itself": ({"storage_path": "memory://runs"}, "is not shared by all nodes"),
    "what cannot be written": ({"storage_path": "/proc/runs"}, "cannot be written"),
    "too much for the cluster": (
        {"estimator": {"isolated": True}, "topology": {"resources": {"GPU": 4}}},
        "a child asks for {CPU: 1, GPU: 4}",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_job_that_cannot_run_there_is_refused_in_one_line(cluster, here, case):
    changes, message = REFUSED[case]
    config = here.make(name=f"refused-{list(REFUSED).index(case)}", **changes)
    code, output = here.call("submit", config, "--follow", "--address", cluster.url)
    assert code == 2, output
    assert message in output
    assert "Traceback" not in output


def test_what_is_not_there(cluster, here):
    code, output = here.call("status", "jbo", "--address", cluster.url)
    assert code == 2, output
    assert "no run 'jbo' was submitted" in output
    code, output = here.call("list", "--address", "http://127.0.0.1:1")
    assert code == 2, output
    assert "no Ray cluster answers there" in output
