"""The parts of a run as Ray actors: the `RayBackend` of a session, made of what `actor.py` and `placement.py` give."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import ray

from nas_cluster.cluster.children.worker import ChildWorker
from nas_cluster.cluster.coordinator.coordinator import Coordinator
from nas_cluster.cluster.learners.parameter_server import ParameterServer
from nas_cluster.cluster.learners.replica import Servers
from nas_cluster.cluster.messages import CoordinatorClient, PartLost, ReplicaClient, ShardClient, WorkerClient
from nas_cluster.cluster.on_ray.actor import (
    RayWorker,
    Remote,
    clear_actor,
    end_actor,
    refill_actor,
    start_actor,
    watch,
)
from nas_cluster.cluster.on_ray.connection import Connection
from nas_cluster.cluster.on_ray.metrics import publish_forever
from nas_cluster.cluster.on_ray.placement import LearnerPlaces, capacity, child_options, this_node
from nas_cluster.cluster.session.backend import make_replica, make_worker, pool_shape
from nas_cluster.config import JobConfig
from nas_cluster.core.clock import SystemClock
from nas_cluster.storage.record import RunRecord

__all__ = ["RayBackend", "run_of"]

_UNASKED = 1 << 20
"""Children that only wait ask for nothing."""
_background: set[asyncio.Task[None]] = set()
"""Tasks beside the parts of this process, which lives as long as they do."""


@dataclass(frozen=True)
class Learner:
    """A actor of shards or replicas, by the name of the first: ROLE-INDEX."""

    name: str
    actor: Any
    generation: int = 0


class RayBackend:
    """Connects to `RAY_ADDRESS` when it is set, and otherwise starts Ray on this machine, on loopback."""

    def __init__(self) -> None:
        self._actors: list[Any] = []
        self._learners: list[Learner] = []
        self._cleared: dict[str, Learner] = {}
        """Actors of lost shards' and replicas' companions, which have imported torch already."""
        self._connection = Connection()
        self._run = ""

    def connect(self) -> None:
        """Make sure that this process is connected to a Ray cluster."""
        self._connection.open()

    async def start_coordinator(self, config: JobConfig, directory: Path) -> CoordinatorClient:
        """The coordinator, on this node: the journal is on its disk."""
        topology = config.topology
        shape = pool_shape(
            config,
            capacity=self.capacity(config),
            wanted=topology.controller_replicas * topology.children_per_replica,
        )
        self._run = run_of(directory)
        factory = partial(_make_coordinator, config.to_dict(), directory, shape.workers, shape.slots_per_worker)
        actor = start_actor([factory], {**this_node(), "name": _actor_name(self._run, "coordinator-0")})
        self._actors.append(actor)
        coordinator = Remote(actor, 0)
        await coordinator._call("progress")  # a run that cannot be opened says so here
        return coordinator

    async def start_shards(self, config: JobConfig) -> Sequence[ShardClient]:
        """S empty shards, `shards_per_actor` to a process; they take no CPU from children."""
        make = partial(_make_shard, config.to_dict())
        self._places = LearnerPlaces(config.topology)
        shards = range(config.topology.parameter_shards)
        return await self._spread("shard", shards, [make for _ in shards], config.topology.shards_per_actor)

    async def start_replicas(
        self, config: JobConfig, indices: Sequence[int], shards: Sequence[ShardClient], coordinator: CoordinatorClient
    ) -> Sequence[ReplicaClient]:
        """One replica per index, `replicas_per_actor` to a process."""
        factories = [partial(_make_replica, config.to_dict(), index, list(shards), coordinator) for index in indices]
        return await self._spread("replica", indices, factories, config.topology.replicas_per_actor)

    async def _spread(
        self, role: str, indices: Sequence[int], factories: Sequence[Callable[[], Any]], per_actor: int
    ) -> list[Any]:
        clients: list[Any] = []
        for start in range(0, len(factories), per_actor):
            group = factories[start : start + per_actor]
            learner = await self._learner(f"{role}-{indices[start]}", group)
            self._learners.append(learner)
            clients += [Remote(learner.actor, part, generation=learner.generation) for part in range(len(group))]
        return clients

    async def _learner(self, name: str, factories: Sequence[Callable[[], Any]]) -> Learner:
        """The actor of this name that was cleared, or a new one, with these parts."""
        place = self._places.next()
        if name not in self._cleared:
            return Learner(name, start_actor(factories, {**place, "name": _actor_name(self._run, name)}))
        learner = self._cleared[name]
        await refill_actor(learner.actor, factories)
        return self._cleared.pop(name)

    async def watch_learners(self) -> None:
        """Raise PartLost as soon as a shard or a replica is lost, also one that nobody has asked for anything."""
        watched = [await watch(learner.actor) for learner in self._learners]
        await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
        raise PartLost(next(lost.result() for lost in watched if lost.done()))

    async def clear_learners(self) -> None:
        """End shards and replicas; the processes that are left carry those that are started next."""
        learners, self._learners = [*self._learners, *self._cleared.values()], []
        generations = await asyncio.gather(*(clear_actor(learner.actor) for learner in learners))
        self._cleared = {
            learner.name: replace(learner, generation=generation)
            for learner, generation in zip(learners, generations, strict=True)
            if generation is not None
        }
        for learner in learners:
            if learner.name not in self._cleared:
                end_actor(learner.actor)

    async def end_learners(self) -> None:
        """End shards and replicas; the coordinator and its workers go on."""
        for learner in [*self._learners, *self._cleared.values()]:
            end_actor(learner.actor)
        self._learners, self._cleared = [], {}

    async def spawn_worker(self, config: JobConfig, directory: Path, index: int, *, test: bool) -> WorkerClient:
        """A worker in an actor that holds what one child may use: waiting ones are requests an autoscaler sees."""
        return _spawn_ray_worker(config.to_dict(), directory, test, index)

    def capacity(self, config: JobConfig) -> int:
        """How many children the cluster's nodes hold at once. Raises ConfigError when that is none."""
        return _UNASKED if config.estimator.shares_process else capacity(config.topology)

    async def close(self) -> None:
        """End all actors, and Ray if it was started or joined here."""
        await self.end_learners()
        for actor in self._actors:
            end_actor(actor)
        self._actors.clear()
        await asyncio.to_thread(self._connection.close)


def run_of(directory: Path) -> str:
    """Short for a run, unique in a cluster."""
    return RunRecord.open(directory).run_id[:12]


def _actor_name(run: str, part: str) -> str:
    """RUN/ROLE-INDEX/UNIQUE: by the first two the fault injector finds a process, the last lets a new one take over."""
    return f"{run}/{part}/{uuid.uuid4().hex[:8]}"


def _make_coordinator(config: dict[str, Any], directory: Path, workers: int, slots_per_worker: int) -> Coordinator:
    async def spawn(index: int) -> WorkerClient:
        return _spawn_ray_worker(config, directory, False, index)

    job = JobConfig.from_dict(config)
    coordinator = Coordinator(
        job,
        directory,
        spawn=spawn,
        workers=workers,
        slots_per_worker=slots_per_worker,
        clock=SystemClock(),
    )
    _background.add(asyncio.ensure_future(publish_forever(job, coordinator)))
    return coordinator


def _spawn_ray_worker(config: dict[str, Any], directory: Path, test: bool, index: int) -> WorkerClient:
    job = JobConfig.from_dict(config)
    resources, shared = job.topology.resources, job.estimator.shares_process
    options: dict[str, Any] = {"num_cpus": 0} if shared else child_options(resources)
    options["name"] = _actor_name(run_of(directory), f"worker-{index}")
    factory = partial(_make_worker, config, directory, index, test)
    return RayWorker(start_actor([factory], options), 0)


def _make_worker(config: dict[str, Any], directory: Path, index: int, test: bool) -> ChildWorker:
    """Called on the worker's node: its group reaches it at that node's address."""
    return make_worker(config, directory, index, test=test, address=ray.util.get_node_ip_address())


def _make_shard(config: dict[str, Any]) -> ParameterServer:
    job = JobConfig.from_dict(config)
    return ParameterServer(job.strategy, job.topology, synchronous=job.mode == "synchronous")


def _make_replica(config: dict[str, Any], index: int, shards: list[Any], coordinator: Any) -> Any:
    """Whether shards and the coordinator live is the supervisor's business, which ends replicas when one does not."""
    servers = Servers([shard.unwatched() for shard in shards])
    return make_replica(JobConfig.from_dict(config), index, servers, coordinator.unwatched())
