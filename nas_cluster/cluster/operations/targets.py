"""What the fault injector reaches of a run on a Ray cluster: its processes, by their actors' names, and its nodes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from nas_cluster.cluster.on_ray.backend import RayBackend, run_of

__all__ = ["RayTargets"]

_ANSWER_SECONDS = 5.0
_NOTICE_SECONDS = 30
"""What a spot machine gets from the notice to its end (GCP; AWS gives 120)."""


class RayTargets:
    """What the fault injector reaches of the run in `directory`, on the cluster at RAY_ADDRESS."""

    def __init__(self, directory: Path) -> None:
        self._run = run_of(directory)
        self._backend = RayBackend()

    def __enter__(self) -> Self:
        self._backend.connect()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run(self._backend.close())

    def parts(self, role: str) -> list[str]:
        """Names of the run's live processes in this role."""
        names = [name.split("/") for name in ray.util.list_named_actors()]
        return [name[1] for name in names if name[0] == self._run and name[1].rpartition("-")[0] == role]

    def nodes(self) -> list[str]:
        """Live nodes that carry parts of the run, without the head, the coordinator's and this one."""
        kept = {ray.get_runtime_context().get_node_id()}
        kept |= {node["NodeID"] for node in ray.nodes() if "node:__internal_head__" in node["Resources"]}
        kept |= set(self._places("coordinator"))
        used = {node for role in ("worker", "shard", "replica") for node in self._places(role)}
        return sorted(used - kept)

    def _places(self, role: str) -> list[str]:
        """Ids of the nodes of all parts in this role, those that answer soon."""
        actors = [actor for part in self.parts(role) if (actor := self._actor(part)) is not None]
        asked = [actor.where.options(concurrency_group="lease").remote() for actor in actors]
        done, _ = ray.wait(asked, num_returns=len(asked), timeout=_ANSWER_SECONDS) if asked else ([], [])
        return [place[0] for place in map(_within_seconds, done) if place is not None]

    def where(self, part: str) -> tuple[str, int] | None:
        """Its node's id and its process's, or None when it is gone."""
        actor = self._actor(part)
        if actor is None:
            return None
        place: tuple[str, int] | None = _within_seconds(actor.where.options(concurrency_group="lease").remote())
        return place

    def kill(self, part: str) -> None:
        """`kill -9` of a process."""
        actor = self._actor(part)
        if actor is not None:
            actor.die.options(concurrency_group="lease").remote()

    def kill_child(self, worker: str) -> bool:
        """`kill -9` of the process in which a worker trains children; False when it has none."""
        actor = self._actor(worker)
        return actor is not None and bool(_within_seconds(actor.call.remote(0, 0, "kill")))

    def drain(self, node: str) -> None:
        """Tell a node that it will be taken away in 30 s, and then take it away. Ray itself only sends nothing new."""
        self._end_raylet(node, _NOTICE_SECONDS)
        command = [sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--node-id", node]
        command += ["--address", ray.get_runtime_context().gcs_address, "--reason", "DRAIN_NODE_REASON_PREEMPTION"]
        command += ["--reason-message", "fault injector", "--deadline-remaining-seconds", str(_NOTICE_SECONDS)]
        subprocess.run(command, check=True, capture_output=True, timeout=60)

    def stop(self, node: str) -> None:
        """`kill -9` of the node's raylet, which its other processes do not outlive."""
        self._end_raylet(node, 0)

    def _end_raylet(self, node: str, seconds: int) -> None:
        there = NodeAffinitySchedulingStrategy(node, soft=False)
        task = ray.remote(_end_raylet).options(num_cpus=0, max_retries=0, scheduling_strategy=there)
        _within_seconds(task.remote(seconds))  # a node that is drained takes no task any more

    def _actor(self, part: str) -> Any:
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
    except (RayError, GetTimeoutError):
        return None


_REAPER = """
import os, signal, sys, time
raylet = os.pidfd_open(int(sys.argv[1]))
print(flush=True)
time.sleep(int(sys.argv[2]))
signal.pidfd_send_signal(raylet, signal.SIGKILL)
"""
"""Cannot hit another process that got the same number meanwhile."""


def _end_raylet(seconds: int) -> None:
    """Called on the node: a worker's parent is its raylet. The shell that starts the reaper ends at once, so that Ray,
    which ends a worker's children with it, does not find it."""
    reaper = [sys.executable, "-c", _REAPER, str(os.getppid()), str(seconds)]
    started = subprocess.Popen(["sh", "-c", '"$@" &', "sh", *reaper], stdout=subprocess.PIPE, start_new_session=True)
    assert started.stdout is not None
    started.stdout.readline()
    started.wait()
