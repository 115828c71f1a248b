"""How the parts of a run are brought to life: the interface of a wiring, and the one that needs no cluster.

`InProcess` runs every part as an object in this process (children still train in processes of their own). It is what
`nas-cluster run --local` and the tests use; `ray_wiring.RayWiring` runs the same classes as Ray actors.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from nas_cluster.cluster.child_worker import ChildWorker
from nas_cluster.cluster.coordinator import Coordinator
from nas_cluster.cluster.fault_injector import Targets
from nas_cluster.cluster.messages import CoordinatorClient, ReplicaClient, ShardClient, WorkerClient
from nas_cluster.cluster.parameter_server import ParameterServer
from nas_cluster.cluster.replica import Replica, Servers
from nas_cluster.config import JobConfig
from nas_cluster.core.clock import Clock, SystemClock
from nas_cluster.storage.layout import LOGS

__all__ = ["InProcess", "PoolShape", "Wiring", "make_targets", "make_wiring", "pool_shape"]

_SHARED_SLOTS_PER_WORKER = 256
"""Slots of one worker process when children only wait (a simulation, a table)."""


@dataclass(frozen=True)
class PoolShape:
    """How many workers serve how many slots each."""

    workers: int
    slots_per_worker: int


def pool_shape(config: JobConfig, *, capacity: int, wanted: int) -> PoolShape:
    """Workers for `wanted` children at once where the cluster holds `capacity` of them."""
    if config.estimator.shares_process:
        slots = config.topology.slots or wanted
        workers = -(-slots // _SHARED_SLOTS_PER_WORKER)
        return PoolShape(workers, -(-slots // workers))
    return PoolShape(config.topology.slots or max(1, min(wanted, capacity)), 1)


class Wiring(Protocol):
    """Starts and ends the parts. A part that is lost raises PartLost from whatever is awaited of it."""

    def connect(self) -> None:
        """Reach the cluster, or start one."""
        ...

    async def start_coordinator(self, config: JobConfig, directory: Path) -> CoordinatorClient: ...
    async def start_shards(self, config: JobConfig) -> Sequence[ShardClient]: ...
    async def start_replicas(
        self, config: JobConfig, indices: Sequence[int], shards: Sequence[ShardClient], coordinator: CoordinatorClient
    ) -> Sequence[ReplicaClient]: ...
    async def watch_learners(self) -> None:
        """Raise PartLost as soon as a shard or a replica is lost; until then, wait."""
        ...

    async def clear_learners(self) -> None:
        """End shards and replicas, to start them again: processes that are left may be kept for that."""
        ...

    async def end_learners(self) -> None:
        """End shards and replicas; the coordinator and its workers go on."""
        ...

    async def spawn_worker(self, config: JobConfig, directory: Path, index: int, *, test: bool) -> WorkerClient: ...
    def capacity(self, config: JobConfig) -> int:
        """How many children the resources hold at once."""
        ...

    async def close(self) -> None: ...


class InProcess:
    """Every part in this process."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()

    def connect(self) -> None:
        """Nothing to reach."""

    async def start_coordinator(self, config: JobConfig, directory: Path) -> CoordinatorClient:
        """The coordinator, with a pool for all K times m children or as many as there are cores."""
        topology = config.topology
        wanted = topology.controller_replicas * topology.children_per_replica
        shape = pool_shape(config, capacity=self.capacity(config), wanted=wanted)

        async def spawn(index: int) -> WorkerClient:
            return await self.spawn_worker(config, directory, index, test=False)

        return Coordinator(
            config,
            directory,
            spawn=spawn,
            workers=shape.workers,
            slots_per_worker=shape.slots_per_worker,
            clock=self._clock,
        )

    async def start_shards(self, config: JobConfig) -> Sequence[ShardClient]:
        """S empty shards."""
        return [
            ParameterServer(config.strategy, config.topology, synchronous=config.mode == "synchronous")
            for _ in range(config.topology.parameter_shards)
        ]

    async def start_replicas(
        self, config: JobConfig, indices: Sequence[int], shards: Sequence[ShardClient], coordinator: CoordinatorClient
    ) -> Sequence[ReplicaClient]:
        """One replica per index."""
        return [make_replica(config, index, Servers(shards), coordinator) for index in indices]

    async def watch_learners(self) -> None:
        """Objects are not lost."""
        await asyncio.Event().wait()

    async def clear_learners(self) -> None:
        """Nothing to end: objects are garbage."""

    async def end_learners(self) -> None:
        """Nothing to end."""

    async def spawn_worker(self, config: JobConfig, directory: Path, index: int, *, test: bool) -> WorkerClient:
        """A worker slot; its children have a process of their own."""
        return make_worker(config.to_dict(), directory, index, test=test)

    def capacity(self, config: JobConfig) -> int:
        """By cores: this machine's GPUs are for Ray to share out."""
        return max(1, int((os.cpu_count() or 1) // max(config.topology.resources.CPU, 0.01)))

    async def close(self) -> None:
        """Nothing to end."""


def make_wiring(local: bool) -> Wiring:
    """Ray actors, or with `local` everything in this process."""
    if local:
        return InProcess()
    if not os.environ.get("RAY_ADDRESS"):
        # Keeps a Ray of our own on loopback. Read when ray is imported, and despite its name on every system.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    from nas_cluster.cluster.ray_wiring import RayWiring  # importing ray takes a second

    return RayWiring()


def make_targets(directory: Path) -> AbstractContextManager[Targets]:
    """What the fault injector can reach of the run in `directory`, on the cluster at RAY_ADDRESS."""
    from nas_cluster.cluster.ray_targets import RayTargets

    return RayTargets(directory)


def make_replica(config: JobConfig, index: int, servers: Servers, coordinator: CoordinatorClient) -> Replica:
    """Replica `index` of a job."""
    return Replica(
        index,
        space=config.space,
        strategy=config.strategy,
        seed=config.seed,
        minibatch=config.topology.children_per_replica,
        servers=servers,
        coordinator=coordinator,
    )


def make_worker(
    config: dict[str, Any], directory: Path, index: int, *, test: bool, host: str = "127.0.0.1"
) -> ChildWorker:
    """Worker `index` of a job; what its children print goes to a log in the run directory."""
    name = f"{'retrain-' if test else ''}worker-{index}"
    return ChildWorker(name, config, log=directory / LOGS / f"{name}.log", test=test, host=host)
