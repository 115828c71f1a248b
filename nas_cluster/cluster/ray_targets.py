"""What the fault injector reaches of a run on a Ray cluster: its processes, by their actors' names, and its nodes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import ray
from ray.exceptions import GetTimeoutError, RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from nas_cluster.cluster.ray_wiring import RayWiring, run_of

__all__ = ["RayTargets"]

_ANSWER_SECONDS = 5.0


class RayTargets:
    """What the fault injector reaches of the run in `directory`, on the cluster at RAY_ADDRESS."""

    def __init__(self, directory: Path) -> None:
        self._run = run_of(directory)
        self._wiring = RayWiring()

    def __enter__(self) -> Self:
        self._wiring.connect()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run(self._wiring.close())

    def parts(self, role: str) -> list[str]:
        """Names of the run's live processes in this role."""
        names = [name.split("/") for name in ray.util.list_named_actors()]
        return [name[1] for name in names if name[0] == self._run and name[1].rpartition("-")[0] == role]

    def nodes(self) -> list[str]:
        """Live nodes without the head, the coordinator's and this one."""
        kept = {ray.get_runtime_context().get_node_id()}
        for coordinator in self.parts("coordinator"):
            place = self.where(coordinator)
            if place is not None:
                kept.add(place[0])
        nodes = [node for node in ray.nodes() if node["Alive"] and "node:__internal_head__" not in node["Resources"]]
        return [node["NodeID"] for node in nodes if node["NodeID"] not in kept]

    def where(self, part: str) -> tuple[str, int] | None:
        """Its node's id and its process's, or None when it is gone."""
        host = self._host(part)
        if host is None:
            return None
        place: tuple[str, int] | None = _within_seconds(host.where.options(concurrency_group="lease").remote())
        return place

    def kill(self, part: str) -> None:
        """`kill -9` of a process."""
        host = self._host(part)
        if host is not None:
            host.die.options(concurrency_group="lease").remote()

    def kill_child(self, worker: str) -> bool:
        """`kill -9` of the process in which a worker trains children; False when it has none."""
        host = self._host(worker)
        return host is not None and bool(_within_seconds(host.call.remote(0, "kill")))

    def drain(self, node: str) -> None:
        """Tell a node that it will be taken away in 30 s."""
        command = [sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--node-id", node]
        command += ["--address", ray.get_runtime_context().gcs_address, "--reason", "DRAIN_NODE_REASON_PREEMPTION"]
        command += ["--reason-message", "fault injector", "--deadline-remaining-seconds", "30"]
        subprocess.run(command, check=True, capture_output=True, timeout=60)

    def stop(self, node: str) -> None:
        """`kill -9` of the node's raylet, which its other processes do not outlive."""
        there = NodeAffinitySchedulingStrategy(node, soft=False)
        ray.remote(_kill_raylet).options(num_cpus=0, max_retries=0, scheduling_strategy=there).remote()

    def _host(self, part: str) -> Any:
        """The actor of this part, or None when it is gone by now."""
        for name in ray.util.list_named_actors():
            if name.startswith(f"{self._run}/{part}/"):
                with contextlib.suppress(ValueError):
                    return ray.get_actor(name)
        return None


def _within_seconds(answer: Any) -> Any:
    """The answer, or None when there is none soon."""
    try:
        return ray.get(answer, timeout=_ANSWER_SECONDS)
    except (RayActorError, GetTimeoutError):
        return None


def _kill_raylet() -> None:
    os.kill(os.getppid(), signal.SIGKILL)
