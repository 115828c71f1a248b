"""A Ray cluster over simulated hosts, started as deploy/ starts it, and searches on it started as a user does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import yaml

from nas_cluster import job
from nas_cluster.config.loading import write_yaml
from nas_cluster.core.errors import RunError
from nas_cluster.storage.layout import JOURNAL

from simulated_hosts import Host, Network  # isort: skip

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
PORT, DASHBOARD_PORT, METRICS_PORT = 6379, 8265, 8080
TRIES = 4
"""A node gives the agents that Ray starts beside it 15 s, which is too little on a machine that has other work."""


def shipped_options():
    """The options of Ray that deploy/ sets, so that what is measured here is what is shipped."""
    cluster = yaml.safe_load((ROOT / "deploy" / "kuberay" / "raycluster.yaml").read_text())["spec"]
    environment = cluster["headGroupSpec"]["template"]["spec"]["containers"][0]["env"]
    return {entry["name"]: entry["value"] for entry in environment if entry["name"].startswith("RAY_")}


class RayHosts:
    """Host 0 is the head and runs the drivers; the others have `cpus` each for children.

    token: the cluster wants it, every host has it in its home, and the head has a dashboard for jobs.
    """

    def __init__(self, network: Network, folder: Path, *, cpus: int = 2, token: str | None = None) -> None:
        self.network, self.folder, self.cpus, self.token = network, folder, cpus, token
        self.head, *self.workers = network.hosts
        self.address = f"{self.head.address}:{PORT}"
        self.url = f"http://{self.head.address}:{DASHBOARD_PORT}"

    def environment(self, host: Host) -> dict[str, str]:
        home = host.folder / "home"
        (home / ".ray").mkdir(parents=True, exist_ok=True)
        if self.token is not None:
            (home / ".ray" / "auth_token").write_text(self.token)
            (home / ".ray" / "auth_token").chmod(0o600)
        return {
            **shipped_options(),
            "HOME": str(home),
            "XDG_CACHE_HOME": str(home / ".cache"),
            "RAY_AUTH_MODE": "disabled" if self.token is None else "token",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",  # the suite's conftest keeps Ray on loopback with this
            "RAY_raylet_start_wait_time_s": "90",  # on a machine that others keep busy a node takes long to start
            "RAY_ADDRESS": self.address,
            "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
            "OMP_NUM_THREADS": "1",
        }

    def start(self) -> None:
        self.start_ray(self.head)
        for host in self.workers:
            self.start_ray(host)

    def start_ray(self, host: Host) -> None:
        role = ["--head", f"--port={PORT}", "--num-cpus=0", f"--include-dashboard={self.token is not None}"]
        role += [f"--dashboard-host={host.address}", f"--dashboard-port={DASHBOARD_PORT}"]
        if host is not self.head:
            role = [f"--address={self.address}", f"--num-cpus={self.cpus}"]
        common = [f"--node-ip-address={host.address}", "--object-store-memory=80000000", "--disable-usage-stats"]
        common += [f"--metrics-export-port={METRICS_PORT}"]
        for _ in range(TRIES):
            done = host.run([str(BIN / "ray"), "start", *role, *common], self.environment(host), timeout=280)
            if done.returncode == 0:
                return
            host.power_off()
            host.boot()
        raise AssertionError(done.stdout + done.stderr)

    def rejoin(self, host: Host) -> None:
        """A host that was lost comes back as a fresh machine does."""
        host.power_off()
        host.boot()
        self.start_ray(host)

    def search(self, config, *arguments: str) -> Search:
        return Search(self, config, arguments)

    def running(self, host: Host, what: str) -> int:
        """How many processes of the host have `what` in their command line."""
        return sum(what in line for line in host.run(["ps", "axo", "args"]).stdout.splitlines())


class Search:
    """`nas-cluster run` on the head."""

    def __init__(self, cluster: RayHosts, config, arguments) -> None:
        self.config, self.directory = config, Path(config.storage_path) / config.name
        file = cluster.folder / f"{config.name}.yaml"
        file.write_text(write_yaml(config.to_dict()))
        self.output = cluster.folder / f"{config.name}.log"
        command = [sys.executable, "-m", "nas_cluster.cli", "run", str(file), *arguments]
        self.process = cluster.head.start(command, cluster.environment(cluster.head), self.output)

    def record(self):
        return job.load_run(self.directory)

    def done(self) -> int:
        try:
            return self.record().counts()["done"] if (self.directory / JOURNAL).exists() else 0
        except RunError:
            return 0

    def wait_done(self, count: int, timeout: float) -> float:
        """Seconds until so many children are done."""
        return self.wait(lambda: self.done() >= count, timeout, f"{count} children")

    def events(self, *kinds: str) -> int:
        return sum(event.kind in kinds for event in self.record().events())

    def wait(self, condition, timeout: float, what: str) -> float:
        started = time.monotonic()
        while not condition():
            assert self.process.poll() is None, f"the driver ended before {what}:\n{self.text()}"
            assert time.monotonic() - started < timeout, f"no {what} in {timeout:g} s:\n{self.text()}"
            time.sleep(0.1)
        return time.monotonic() - started

    def finish(self, timeout: float) -> int:
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the search does not end:\n{self.text()}") from None

    def signal(self, number: signal.Signals) -> None:
        """To the driver, which is the child of the process that entered the host's namespaces."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        os.kill(int(children[0]), number)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.signal(signal.SIGKILL)
            self.process.wait()

    def text(self) -> str:
        return self.output.read_text(errors="replace")[-3000:]
