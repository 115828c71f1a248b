"""How the parts of a run are brought to life: the interface of a backend, and what all backends share.

`in_process.InProcess` makes every part an object in one process, `on_ray.backend.RayBackend` Ray actors of the same
classes. Which one a job gets is decided by `job.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from nas_cluster.cluster.children.worker import ChildWorker
from nas_cluster.cluster.learners.replica import Replica, Servers
from nas_cluster.cluster.messages import CoordinatorClient, ReplicaClient, ShardClient, WorkerClient
from nas_cluster.config import JobConfig
from nas_cluster.storage.layout import LOGS

__all__ = ["Backend", "PoolShape", "make_replica", "make_worker", "pool_shape"]

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


class Backend(Protocol):
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
    config: dict[str, Any], directory: Path, index: int, *, test: bool, address: str = "127.0.0.1"
) -> ChildWorker:
    """Worker `index` of a job; what its children print goes to a log in the run directory."""
    name = f"{'retrain-' if test else ''}worker-{index}"
    return ChildWorker(name, config, log=directory / LOGS / f"{name}.log", test=test, address=address)
