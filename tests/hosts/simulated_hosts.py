"""Several hosts on one machine: a network namespace and a process namespace each, joined by a switch that can lose
frames. Needs root, iproute2 and util-linux; no bridge, netem or netfilter in the kernel."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).parent
NETWORK = "10.77.0"


def why_not() -> str | None:
    """Why this machine cannot simulate hosts; None when it can."""
    missing = [tool for tool in ("ip", "unshare", "nsenter", "mount") if shutil.which(tool) is None]
    if missing:
        return f"needs {', '.join(missing)}"
    if os.geteuid() != 0:
        return "needs root, for network namespaces"
    probe = f"probe-{uuid.uuid4().hex[:8]}"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True)
    if made.returncode:
        return f"no network namespaces here: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", probe], check=True)
    return None


class Host:
    """One host: processes started with `run` and `start` see only its network, its processes and its Ray folder."""

    def __init__(self, name: str, address: str, folder: Path) -> None:
        self.name, self.address, self.folder = name, address, folder
        self._unshared: subprocess.Popen[str] | None = None
        self._init = 0

    def boot(self) -> None:
        """Start the first process; again after `power_off`."""
        ray_folder = self.folder / "ray"
        ray_folder.mkdir(parents=True, exist_ok=True)
        Path("/tmp/ray").mkdir(exist_ok=True)  # only a place to mount this host's own
        script = f"mount --bind {ray_folder} /tmp/ray && exec {sys.executable} {HERE / 'init.py'}"
        command = ["ip", "netns", "exec", self.name, "unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
        self._unshared = subprocess.Popen(
            [*command, "sh", "-c", script], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        )
        assert self._unshared.stdout is not None
        assert self._unshared.stdout.readline() == "ready\n", f"{self.name} does not boot"
        children = Path(f"/proc/{self._unshared.pid}/task/{self._unshared.pid}/children").read_text().split()
        self._init = int(children[0])

    def power_off(self) -> None:
        """Every process of the host is gone at once."""
        if self._unshared is not None:
            os.kill(self._init, signal.SIGKILL)
            self._unshared.wait(30)
            self._unshared = None

    def command(self, arguments: Sequence[str]) -> list[str]:
        """The command line that runs `arguments` on this host."""
        return ["nsenter", f"--target={self._init}", "--net", "--pid", "--mount", *arguments]

    def run(
        self, arguments: Sequence[str], env: Mapping[str, str] | None = None, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run a command here to its end."""
        return subprocess.run(
            self.command(arguments), env={**os.environ, **(env or {})}, capture_output=True, text=True, timeout=timeout
        )

    def start(self, arguments: Sequence[str], env: Mapping[str, str] | None, output: Path) -> subprocess.Popen[bytes]:
        """Start a command here; what it prints is appended to `output`."""
        with output.open("ab") as log:
            return subprocess.Popen(
                self.command(arguments),
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


class Network:
    """`hosts` hosts on one switch: `with Network(3, folder) as network: network.hosts[0].run([...])`."""

    def __init__(self, hosts: int, folder: Path) -> None:
        self._id = uuid.uuid4().hex[:6]
        self._switch_name = f"nas-{self._id}-switch"
        self._switch: subprocess.Popen[str] | None = None
        self.hosts = [
            Host(f"nas-{self._id}-{index}", f"{NETWORK}.{index + 1}", folder / f"host-{index}")
            for index in range(hosts)
        ]

    def __enter__(self) -> Network:
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def lose(self, host: int, *, from_host: float, to_host: float) -> None:
        """Lose this share of the frames that the host sends, and of those for it."""
        assert self._switch is not None and self._switch.stdin is not None and self._switch.stdout is not None
        self._switch.stdin.write(json.dumps({"port": host, "from": from_host, "to": to_host}) + "\n")
        self._switch.stdin.flush()
        assert self._switch.stdout.readline() == "done\n", "the switch has died"

    def cut(self, host: int) -> None:
        """Cut a host off, silently: nobody is told, no connection is closed."""
        self.lose(host, from_host=1.0, to_host=1.0)

    def mend(self, host: int) -> None:
        """Lose nothing any more."""
        self.lose(host, from_host=0.0, to_host=0.0)

    def _build(self) -> None:
        _ip("netns", "add", self._switch_name)
        for index, host in enumerate(self.hosts):
            _ip("netns", "add", host.name)
            far, port = f"eth{index}", f"port{index}"
            _ip("-n", host.name, "link", "add", far, "type", "veth", "peer", "name", port, "netns", self._switch_name)
            _ip("-n", host.name, "address", "add", f"{host.address}/24", "dev", far)
            for device in ("lo", far):
                _ip("-n", host.name, "link", "set", device, "up")
            _ip("-n", self._switch_name, "link", "set", port, "up")
        ports = [f"port{index}" for index in range(len(self.hosts))]
        self._switch = subprocess.Popen(
            ["ip", "netns", "exec", self._switch_name, sys.executable, str(HERE / "switch.py"), *ports],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._switch.stdout is not None and self._switch.stdout.readline() == "ready\n"
        for host in self.hosts:
            host.boot()

    def close(self) -> None:
        """End every process of every host, and the namespaces."""
        for host in self.hosts:
            host.power_off()
        if self._switch is not None:
            self._switch.kill()
            self._switch.wait()
        for name in (*(host.name for host in self.hosts), self._switch_name):
            deadline = time.monotonic() + 10
            while subprocess.run(["ip", "netns", "del", name], capture_output=True).returncode:
                if time.monotonic() > deadline or not Path(f"/run/netns/{name}").exists():
                    break
                time.sleep(0.1)


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"
