"""What every node of a cluster says about itself: versions, cards, its clock, and whether it shares the storage."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from nas_cluster.cluster.coordinator.phases import schedule_of
from nas_cluster.cluster.on_ray.placement import alive_nodes
from nas_cluster.config import JobConfig
from nas_cluster.core.errors import ConfigError
from nas_cluster.storage.layout import is_remote

__all__ = ["NodeReport", "check_storage", "probe"]

_NODE_SECONDS = 120.0
"""A node that has not answered by then is reported as silent."""
_NETWORK = {
    *("nfs", "nfs4", "cifs", "smb3", "smbfs", "ceph", "lustre", "gpfs", "beegfs", "afs", "glusterfs", "ocfs2", "gfs2"),
    *("fuse.sshfs", "fuse.s3fs", "fuse.gcsfuse", "gcsfuse", "fuse.glusterfs", "fuse.juicefs", "fuse.mountpoint-s3"),
}


@dataclass(frozen=True)
class NodeReport:
    """One node. error: why it could not be asked. storage: what is wrong with it there, "" for nothing.

    clock_seconds: how far its clock is ahead of this process's, within half of the call's own time.
    """

    address: str
    resources: Mapping[str, float]
    labels: Mapping[str, str]
    error: str = ""
    versions: Mapping[str, str] | None = None
    gpus: tuple[str, ...] = ()
    token_wanted: bool = False
    clock_seconds: float = 0.0
    storage: str = ""


def probe(storage_path: str | None = None) -> list[NodeReport]:
    """Ask every node of the cluster that this process is connected to.

    With a storage path, a file written here must be read there, and one that is written there must be seen here.
    """
    nodes = alive_nodes()
    marker = _Marker(storage_path) if storage_path is not None else None
    try:
        here = marker.write("driver") if marker else ""
        facts = _on_every(nodes, _facts)
        stored = _on_every(nodes, marker.check_there) if marker and not here else _Answers({}, {})
        clocks = {node["NodeID"]: _clock_of(node["NodeID"]) for node in nodes if node["NodeID"] in facts.good}
        reports = []
        for node in nodes:
            name = node["NodeID"]
            versions, gpus, token_wanted = facts.good.get(name, (None, (), False))
            storage = here
            if marker and not here:
                storage = stored.bad.get(name) or stored.good.get(name) or marker.seen(name)
            reports.append(
                NodeReport(
                    node["NodeManagerAddress"],
                    {k: v for k, v in node["Resources"].items() if k in ("CPU", "GPU")},
                    {k: v for k, v in node["Labels"].items() if k != "ray.io/node-id"},
                    facts.bad.get(name, ""),
                    versions,
                    gpus,
                    token_wanted,
                    clocks.get(name, 0.0),
                    storage,
                )
            )
        return reports
    finally:
        if marker:
            marker.remove()


def check_storage(config: JobConfig) -> str:
    """One line about storage that all nodes share. Raises ConfigError when they do not, or a run there is not safe."""
    path = config.storage_path
    if not is_remote(path):
        if not Path(path).is_absolute():
            raise ConfigError(f"storage_path: {path!r} is relative; nodes share an absolute folder or a URL")
        kind = _file_system(Path(path))
        if kind in _NETWORK:
            raise ConfigError(
                f"storage_path: {path} is {kind}, where a live journal is not safe; write file://{path} and the run is "
                "mirrored there"
            )
    reports = probe(path)
    wrong = [f"{report.address}: {report.error or report.storage}" for report in reports if report.storage]
    if wrong:
        raise ConfigError(
            f"storage_path: {path} is not shared by all nodes ({wrong[0]}); "
            "use a folder that is mounted on every node (file:///mnt/shared) or a URL (s3://...)"
        )
    if len(reports) > 1 and is_remote(path) and not path.startswith("file://") and schedule_of(config) is not None:
        raise ConfigError(
            f"storage_path: the workers of estimator {config.estimator.kind!r} pass tensors to each other in files; "
            f"on {len(reports)} nodes that needs a folder that is mounted on each (file:///mnt/shared)"
        )
    return f"{path} is shared by {len(reports)} node(s)"


@dataclass(frozen=True)
class _Answers:
    """By node id: what was answered, and why nothing was."""

    good: dict[str, Any]
    bad: dict[str, str]


def _on_every(nodes: list[dict[str, Any]], function: Callable[[str], Any]) -> _Answers:
    """`function(node id)` on every node at once. No retries, and no waiting for a node that hangs."""
    calls = {_on(node["NodeID"], function): node["NodeID"] for node in nodes}
    done, silent = ray.wait(list(calls), num_returns=len(calls), timeout=_NODE_SECONDS)
    good, bad = {}, {calls[call]: f"did not answer in {_NODE_SECONDS:g} s" for call in silent}
    for call in done:
        try:
            good[calls[call]] = ray.get(call, timeout=_NODE_SECONDS)
        except RayError as error:
            lines = str(error).splitlines() or [type(error).__name__]
            bad[calls[call]] = lines[-1] if "Error" in lines[-1] else lines[0]
    return _Answers(good, bad)


def _on(node_id: str, function: Callable[[str], Any]) -> Any:
    where = NodeAffinitySchedulingStrategy(node_id, soft=False)
    task = ray.remote(num_cpus=0, max_retries=0)(_call)
    return task.options(scheduling_strategy=where).remote(function, node_id)


def _call(function: Callable[[str], Any], node_id: str) -> Any:
    return function(node_id)


def _facts(_: str) -> tuple[dict[str, str], tuple[str, ...], bool]:
    """Versions without importing what they are of, the cards that the driver sees, and whether a token is wanted."""
    versions = {"python": platform.python_version()}
    for name in ("ray", "torch"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "missing"
    tool = shutil.which("nvidia-smi")
    gpus: tuple[str, ...] = ()
    if tool:
        asked = subprocess.run(
            [tool, "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True, timeout=20, check=False
        )
        gpus = tuple(line.strip() for line in asked.stdout.splitlines() if line.strip()) if not asked.returncode else ()
    return versions, gpus, os.environ.get("RAY_AUTH_MODE") == "token"


def _clock_of(node_id: str) -> float:
    """By how many seconds the node's clock is ahead: the quickest of three calls, at the middle of it."""
    best, ahead = float("inf"), 0.0
    for _ in range(3):
        before = time.time()
        try:
            there = ray.get(_on(node_id, _now), timeout=_NODE_SECONDS)
        except RayError:
            break
        after = time.time()
        if after - before < best:
            best, ahead = after - before, there - (before + after) / 2
    return ahead if abs(ahead) > best / 2 else 0.0


def _now(_: str) -> float:
    return time.time()


class _Marker:
    """Files in a storage path by which nodes know each other's writes. Works the same for a folder and a URL."""

    def __init__(self, storage_path: str) -> None:
        self._path = storage_path
        self._names = f".nas_cluster-{secrets.token_hex(8)}"
        self._text = secrets.token_hex(16)

    def _open(self) -> tuple[Any, str]:
        fs, root = fsspec.core.url_to_fs(self._path)
        fs.invalidate_cache()
        return fs, f"{root.rstrip('/')}/{self._names}"

    def write(self, who: str) -> str:
        """Write the marker of `who`; what went wrong, or ""."""
        try:
            fs, place = self._open()
            fs.makedirs(place.rpartition("/")[0], exist_ok=True)
            fs.pipe_file(f"{place}-{who}", self._text.encode())
        except Exception as error:  # every fsspec backend has its own
            return f"cannot be written: {_line(error)}"
        return ""

    def check_there(self, node_id: str) -> str:
        """On a node: read what the driver wrote, write an answer."""
        try:
            fs, place = self._open()
            if fs.cat_file(f"{place}-driver").decode() != self._text:
                return "holds something else"
        except FileNotFoundError:
            return "what another node has written there is not seen"
        except Exception as error:
            return f"cannot be read: {_line(error)}"
        return self.write(node_id)

    def seen(self, node_id: str) -> str:
        """On the driver: whether the node's answer is here."""
        try:
            fs, place = self._open()
            return "" if fs.exists(f"{place}-{node_id}") else "what it has written there is not seen"
        except Exception as error:
            return f"cannot be read: {_line(error)}"

    def remove(self) -> None:
        """Leave nothing behind."""
        with contextlib.suppress(Exception):  # what is wrong with this storage was said already
            fs, place = self._open()
            for name in fs.glob(f"{place}-*"):
                fs.rm_file(name)


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"[:200]


def _file_system(path: Path) -> str:
    """The kind of file system that `path`, or its nearest folder that is there, lies on."""
    while not path.exists():
        path = path.parent
    real = str(path.resolve())
    kind, longest = "", -1
    for line in Path("/proc/self/mounts").read_text().splitlines():
        where, name = line.split()[1:3]
        where = where.replace("\\040", " ")
        if len(where) > longest and (real == where or real.startswith(where.rstrip("/") + "/")):
            kind, longest = name, len(where)
    return kind
