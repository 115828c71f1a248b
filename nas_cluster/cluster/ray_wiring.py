"""The parts of a run as Ray actors. Beside this module only its neighbours `ray_*.py` import ray.

One actor class, `Host`, carries any number of plain objects and forwards calls to them; so the parts need no decorator,
and `replicas_per_actor` or `shards_per_actor` is only a question of how many go into one host. Ray's own retries and
restarts stay off: a restarted actor is an empty one and a retried call is re-ordered, so recovery is ours. So is
noticing a loss that nobody tells Ray of: every host holds a lease (`lease.py`), renewed by the process that started it.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import threading
import uuid
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayActorError, RayTaskError

from nas_cluster.cluster.child_worker import ChildWorker
from nas_cluster.cluster.coordinator import Coordinator
from nas_cluster.cluster.lease import Lease, Unanswered, until_lost
from nas_cluster.cluster.messages import CoordinatorClient, PartLost, ReplicaClient, ShardClient, WorkerClient
from nas_cluster.cluster.parameter_server import ParameterServer
from nas_cluster.cluster.ray_connection import Connection
from nas_cluster.cluster.ray_metrics import publish_forever
from nas_cluster.cluster.ray_placement import LearnerPlaces, capacity, child_options, this_node
from nas_cluster.cluster.replica import Servers
from nas_cluster.cluster.wiring import make_replica, make_worker, pool_shape
from nas_cluster.config import JobConfig
from nas_cluster.core.clock import SystemClock
from nas_cluster.core.evaluation import Child, ChildId, Evaluation
from nas_cluster.storage.record import RunRecord

__all__ = ["RayWiring", "run_of"]


_UNASKED = 1 << 20
"""Children that only wait ask for nothing."""
_background: set[asyncio.Task[None]] = set()
"""Tasks beside the parts of this process, which lives as long as they do."""


class Host:
    """An actor that carries plain objects. They are made by the first call, so that a part that cannot be made
    raises its own error there and not the actor's death."""

    def __init__(self, factories: Sequence[Callable[[], Any]]) -> None:
        self._factories = factories
        self._parts: list[Any] = []
        self._lease = Lease(self._end)

    async def call(self, part: int, method: str, *arguments: Any) -> Any:
        """Call a method of one part."""
        await self.open()
        result = getattr(self._parts[part], method)(*arguments)
        return await result if inspect.isawaitable(result) else result

    async def open(self) -> None:
        """Make the parts, which may import for seconds: only after that is silence a sign."""
        if not self._parts:
            self._parts = [factory() for factory in self._factories]

    async def beat(self) -> None:
        """The owner is there. Answered in a thread of its own, whatever the parts are at."""
        self._lease.renew()

    async def die(self) -> None:
        """`kill -9` of this process, for the fault injector; in the same thread."""
        os.kill(os.getpid(), signal.SIGKILL)

    async def where(self) -> tuple[str, int]:
        """Its node's id and its process's; in the same thread."""
        return ray.get_runtime_context().get_node_id(), os.getpid()

    def _end(self) -> None:
        """Nobody owns these parts any more."""
        for part in self._parts:
            if isinstance(part, ChildWorker):
                part.kill()
        os._exit(1)


class Remote:
    """A part in a host: its methods are coroutines here. Lost hosts raise PartLost, errors raise themselves.

    watched: whether this process renews the host's lease, and takes the host for lost when it does not answer.
    """

    def __init__(self, host: Any, part: int, *, watched: bool = True) -> None:
        self._host = host
        self._part = part
        self._watched = watched

    def unwatched(self) -> Remote:
        """The same part for a process that leaves it to others to notice a loss."""
        return Remote(self._host, self._part, watched=False)

    def __getattr__(self, method: str) -> Callable[..., Any]:
        if method.startswith("_"):
            raise AttributeError(method)
        return partial(self._call, method)

    async def _call(self, method: str, *arguments: Any) -> Any:
        lost = await _watch(self._host) if self._watched else None
        answer = asyncio.ensure_future(_answer(self._host.call.remote(self._part, method, *arguments)))
        try:
            await asyncio.wait([answer] if lost is None else [answer, lost], return_when=asyncio.FIRST_COMPLETED)
            if not answer.done() and lost is not None:
                raise PartLost(lost.result())
        finally:
            answer.cancel()
        return answer.result()


async def _answer(call: Any) -> Any:
    """A call's result. Raises PartLost when the host is gone, and what the part raised."""
    try:
        return await call
    except RayActorError as error:
        raise PartLost(_first_line(error)) from error
    except RayTaskError as error:
        cause = error.cause
        raise (cause if isinstance(cause, Exception) else error) from error


_WATCHED: dict[Any, asyncio.Future[str]] = {}
"""The hosts whose leases this process renews: a future that has the reason once the host is lost."""


async def _watch(host: Any) -> asyncio.Future[str]:
    """Renew a host's lease from now on, once its parts are made."""
    if host._actor_id not in _WATCHED:
        await _answer(host.open.remote())
        if host._actor_id not in _WATCHED:
            _WATCHED[host._actor_id] = asyncio.get_running_loop().create_future()
            asyncio.run_coroutine_threadsafe(_keep_watch(host, _WATCHED[host._actor_id]), _watch_loop())
    return _WATCHED[host._actor_id]


@cache
def _watch_loop() -> asyncio.AbstractEventLoop:
    """In a thread of its own: whatever this process is busy with, its hosts are asked for beats."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="leases", daemon=True).start()
    return loop


async def _keep_watch(host: Any, lost: asyncio.Future[str]) -> None:
    async def beat() -> None:
        if _WATCHED.get(host._actor_id) is not lost:
            raise asyncio.CancelledError  # closed
        try:
            await host.beat.options(concurrency_group="lease").remote()
        except ActorUnavailableError as error:
            raise Unanswered from error

    try:
        reason = await until_lost(beat)
    except RayActorError as error:
        reason = _first_line(error)
    if _WATCHED.get(host._actor_id) is lost:
        lost.get_loop().call_soon_threadsafe(lost.set_result, reason)
        await asyncio.to_thread(ray.kill, host, no_restart=True)  # it may only be deaf, and hold a card


def _end_host(host: Any) -> None:
    _WATCHED.pop(host._actor_id, None)
    ray.kill(host, no_restart=True)


class RayWorker(Remote):
    """A child worker in a host of its own, which `close` ends."""

    async def close(self) -> None:
        """End the worker's process, and with it the child's."""
        _end_host(self._host)


class BatchedRayWorker(RayWorker):
    """A worker of many slots: children asked for in one turn of the event loop travel in one call, and so do results.

    A Ray call costs about a millisecond of CPU on both sides, more than a simulated child does.
    """

    def __init__(self, host: Any, part: int) -> None:
        super().__init__(host, part)
        self._outbox: list[Child] = []
        self._waiting: dict[ChildId, asyncio.Future[Evaluation]] = {}
        self._collecting: asyncio.Task[None] | None = None

    async def evaluate(self, child: Child) -> Evaluation:
        """Score one child."""
        loop = asyncio.get_running_loop()
        if not self._outbox:
            loop.call_soon(self._send)
        self._outbox.append(child)
        future: asyncio.Future[Evaluation] = loop.create_future()
        self._waiting[child.child_id] = future
        return await future

    def _send(self) -> None:
        children, self._outbox = self._outbox, []
        task = asyncio.ensure_future(self._call("submit", children))
        task.add_done_callback(self._check)
        if self._collecting is None:
            self._collecting = asyncio.ensure_future(self._collect())
            self._collecting.add_done_callback(self._check)

    async def _collect(self) -> None:
        while self._waiting:
            for child_id, evaluation in await self._call("collect"):
                future = self._waiting.pop(child_id, None)
                if future is not None and not future.done():
                    future.set_result(evaluation)
        self._collecting = None

    def _check(self, task: asyncio.Task[Any]) -> None:
        """A lost worker loses every child it had."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(error)
            self._waiting.clear()


class RayWiring:
    """Connects to `RAY_ADDRESS` when it is set, and otherwise starts Ray on this machine, on loopback."""

    def __init__(self) -> None:
        self._hosts: list[Any] = []
        self._learners: list[Any] = []
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
        host = _start_host([factory], {**this_node(), "name": _host_name(self._run, "coordinator", 0)})
        self._hosts.append(host)
        coordinator = Remote(host, 0)
        await coordinator._call("progress")  # a run that cannot be opened says so here
        return coordinator

    async def start_shards(self, config: JobConfig) -> Sequence[ShardClient]:
        """S empty shards, `shards_per_actor` to a process; they take no CPU from children."""
        make = partial(_make_shard, config.to_dict())
        self._places = LearnerPlaces(config.topology)
        return self._spread("shard", [make] * config.topology.parameter_shards, config.topology.shards_per_actor)

    async def start_replicas(
        self, config: JobConfig, indices: Sequence[int], shards: Sequence[ShardClient], coordinator: CoordinatorClient
    ) -> Sequence[ReplicaClient]:
        """One replica per index, `replicas_per_actor` to a process."""
        factories = [partial(_make_replica, config.to_dict(), index, list(shards), coordinator) for index in indices]
        return self._spread("replica", factories, config.topology.replicas_per_actor)

    def _spread(self, role: str, factories: Sequence[Callable[[], Any]], per_host: int) -> list[Any]:
        clients: list[Any] = []
        for start in range(0, len(factories), per_host):
            group = factories[start : start + per_host]
            host = _start_host(group, {**self._places.next(), "name": _host_name(self._run, role, start)})
            self._learners.append(host)
            clients += [Remote(host, part) for part in range(len(group))]
        return clients

    async def watch_learners(self) -> None:
        """Raise PartLost as soon as a shard or a replica is lost, also one that nobody has asked for anything."""
        watched = [await _watch(host) for host in self._learners]
        await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
        raise PartLost(next(lost.result() for lost in watched if lost.done()))

    async def end_learners(self) -> None:
        """End shards and replicas; the coordinator and its workers go on."""
        for host in self._learners:
            _end_host(host)
        self._learners.clear()

    async def spawn_worker(self, config: JobConfig, directory: Path, index: int, *, test: bool) -> WorkerClient:
        """A worker in an actor that holds what one child may use: waiting ones are requests an autoscaler sees."""
        return _spawn_ray_worker(config.to_dict(), directory, test, index)

    def capacity(self, config: JobConfig) -> int:
        """How many children the cluster's nodes hold at once. Raises ConfigError when that is none."""
        return _UNASKED if config.estimator.shares_process else capacity(config.topology)

    async def close(self) -> None:
        """End all actors, and Ray if it was started or joined here."""
        await self.end_learners()
        for host in self._hosts:
            _end_host(host)
        self._hosts.clear()
        await asyncio.to_thread(self._connection.close)


def _start_host(factories: Sequence[Callable[[], Any]], options: dict[str, Any]) -> Any:
    actor = ray.remote(concurrency_groups={"lease": 4})(Host)
    options = {"max_restarts": 0, "max_task_retries": 0, "max_concurrency": 10_000, **options}
    return actor.options(**options).remote(list(factories))


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def run_of(directory: Path) -> str:
    """Short for a run, unique in a cluster."""
    return RunRecord.open(directory).run_id[:12]


def _host_name(run: str, role: str, index: int) -> str:
    """RUN/ROLE-INDEX/UNIQUE: by the first two the fault injector finds a process, the last lets a new one take over."""
    return f"{run}/{role}-{index}/{uuid.uuid4().hex[:8]}"


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
    options["name"] = _host_name(run_of(directory), "worker", index)
    factory = partial(_make_worker, config, directory, index, test)
    client = BatchedRayWorker if shared else RayWorker
    return client(_start_host([factory], options), 0)


def _make_worker(config: dict[str, Any], directory: Path, index: int, test: bool) -> ChildWorker:
    """Called on the worker's node: its group reaches it at that node's address."""
    return make_worker(config, directory, index, test=test, host=ray.util.get_node_ip_address())


def _make_shard(config: dict[str, Any]) -> ParameterServer:
    job = JobConfig.from_dict(config)
    return ParameterServer(job.strategy, job.topology, synchronous=job.mode == "synchronous")


def _make_replica(config: dict[str, Any], index: int, shards: list[Any], coordinator: Any) -> Any:
    """Whether shards and the coordinator live is the supervisor's business, which ends replicas when one does not."""
    servers = Servers([shard.unwatched() for shard in shards])
    return make_replica(JobConfig.from_dict(config), index, servers, coordinator.unwatched())
