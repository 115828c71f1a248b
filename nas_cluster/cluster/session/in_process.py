"""The backend that needs no cluster: every part is an object in this process, and children train in processes of
their own. It is what `nas-cluster run --local` and most tests use."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

from nas_cluster.cluster.coordinator.coordinator import Coordinator
from nas_cluster.cluster.learners.parameter_server import ParameterServer
from nas_cluster.cluster.learners.replica import Servers
from nas_cluster.cluster.messages import CoordinatorClient, ReplicaClient, ShardClient, WorkerClient
from nas_cluster.cluster.session.backend import make_replica, make_worker, pool_shape
from nas_cluster.config import JobConfig
from nas_cluster.core.clock import Clock, SystemClock

__all__ = ["InProcess"]


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
