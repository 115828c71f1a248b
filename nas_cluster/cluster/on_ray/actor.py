"""The process that carries parts of a run: one actor class, and what its owner holds of it.

`Actor` carries any number of plain objects and forwards calls to them; so the parts need no decorator, and
`replicas_per_actor` or `shards_per_actor` is only a question of how many go into one actor. Ray's own retries and
restarts stay off: a restarted actor is an empty one and a retried call is re-ordered, so recovery is ours. So is
noticing a loss that nobody tells Ray of: every actor holds a lease (`lease.py`), which its owner renews.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import threading
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayActorError, RayError, RayTaskError

from nas_cluster.cluster.children.worker import ChildWorker
from nas_cluster.cluster.messages import PartLost
from nas_cluster.cluster.on_ray.private import actor_id
from nas_cluster.cluster.session.lease import Lease, Unanswered, until_lost

__all__ = ["RayWorker", "Remote", "clear_actor", "end_actor", "refill_actor", "start_actor", "watch"]

_ANSWER_SECONDS = 5.0
_CLEARED = "its process was cleared for another"


class Actor:
    """An actor that carries plain objects. They are made by the first call, so that a part that cannot be made
    raises its own error there and not the actor's death.

    A actor may be cleared and given new parts, its generation then being the next; a call that was meant for the parts
    of an earlier one finds them lost.
    """

    def __init__(self, factories: Sequence[Callable[[], Any]]) -> None:
        self._factories = factories
        self._parts: list[Any] = []
        self._generation = 0
        self._calls: set[asyncio.Future[Any]] = set()
        self._lease = Lease(self._end)

    async def call(self, generation: int, part: int, method: str, *arguments: Any) -> Any:
        """Call a method of one part. Raises PartLost when the actor was cleared since, or meanwhile."""
        if generation != self._generation:
            raise PartLost(_CLEARED)
        await self.open()
        result = getattr(self._parts[part], method)(*arguments)
        if not inspect.isawaitable(result):
            return result
        call = asyncio.ensure_future(result)
        self._calls.add(call)
        try:
            return await call
        except asyncio.CancelledError as error:
            raise PartLost(_CLEARED) from error
        finally:
            self._calls.discard(call)

    async def clear(self) -> int:
        """Break off all calls and let go of the parts; returns the number of the next generation."""
        self._generation += 1
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)
        self._factories, self._parts = [], []
        return self._generation

    async def take(self, factories: Sequence[Callable[[], Any]]) -> None:
        """New parts, after `clear`."""
        self._factories = factories

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


def start_actor(factories: Sequence[Callable[[], Any]], options: dict[str, Any]) -> Any:
    """An actor that carries what these make; `options` are Ray's."""
    actor = ray.remote(concurrency_groups={"lease": 4})(Actor)
    options = {"max_restarts": 0, "max_task_retries": 0, "max_concurrency": 10_000, **options}
    return actor.options(**options).remote(list(factories))


async def clear_actor(actor: Any) -> int | None:
    """Take its parts from a actor; the number of its next generation, or None when it does not answer soon."""
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            if (await watch(actor)).done():
                return None
            generation: int = await actor.clear.remote()
            return generation
    except (TimeoutError, PartLost, RayError):
        return None


async def refill_actor(actor: Any, factories: Sequence[Callable[[], Any]]) -> None:
    """Give a cleared actor new parts. Raises PartLost when it does not answer any more."""
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            await actor.take.remote(list(factories))
    except (TimeoutError, RayError) as error:
        raise PartLost(_first_line(error)) from error


def end_actor(actor: Any) -> None:
    """End an actor of this process; nobody is told of a loss."""
    _WATCHED.pop(actor_id(actor), None)
    ray.kill(actor, no_restart=True)


class Remote:
    """A part in a actor: its methods are coroutines here. Lost actors raise PartLost, errors raise themselves.

    watched: whether this process renews the actor's lease, and takes the actor for lost when it does not answer.
    """

    def __init__(self, actor: Any, part: int, *, generation: int = 0, watched: bool = True) -> None:
        self._actor = actor
        self._part = part
        self._generation = generation
        self._watched = watched

    def unwatched(self) -> Remote:
        """The same part for a process that leaves it to others to notice a loss."""
        return Remote(self._actor, self._part, generation=self._generation, watched=False)

    def __getattr__(self, method: str) -> Callable[..., Any]:
        if method.startswith("_"):
            raise AttributeError(method)
        return partial(self._call, method)

    async def _call(self, method: str, *arguments: Any) -> Any:
        lost = await watch(self._actor) if self._watched else None
        call = self._actor.call.remote(self._generation, self._part, method, *arguments)
        answer = asyncio.ensure_future(_answer(call))
        try:
            await asyncio.wait([answer] if lost is None else [answer, lost], return_when=asyncio.FIRST_COMPLETED)
            if not answer.done() and lost is not None:
                raise PartLost(lost.result())
        finally:
            answer.cancel()
        return answer.result()


async def _answer(call: Any) -> Any:
    """A call's result. Raises PartLost when the actor is gone, and what the part raised."""
    try:
        return await call
    except RayActorError as error:
        raise PartLost(_first_line(error)) from error
    except RayTaskError as error:
        cause = error.cause
        raise (cause if isinstance(cause, Exception) else error) from error


_WATCHED: dict[Any, asyncio.Future[str]] = {}
"""The actors whose leases this process renews: a future that has the reason once the actor is lost."""


async def watch(actor: Any) -> asyncio.Future[str]:
    """Renew a actor's lease from now on, once its parts are made."""
    if actor_id(actor) not in _WATCHED:
        await _answer(actor.open.remote())
        if actor_id(actor) not in _WATCHED:
            _WATCHED[actor_id(actor)] = asyncio.get_running_loop().create_future()
            asyncio.run_coroutine_threadsafe(_keep_watch(actor, _WATCHED[actor_id(actor)]), _watch_loop())
    return _WATCHED[actor_id(actor)]


@cache
def _watch_loop() -> asyncio.AbstractEventLoop:
    """In a thread of its own: whatever this process is busy with, its actors are asked for beats."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="leases", daemon=True).start()
    return loop


async def _keep_watch(actor: Any, lost: asyncio.Future[str]) -> None:
    async def beat() -> None:
        if _WATCHED.get(actor_id(actor)) is not lost:
            raise asyncio.CancelledError  # closed
        try:
            await actor.beat.options(concurrency_group="lease").remote()
        except ActorUnavailableError as error:
            raise Unanswered from error

    try:
        reason = await until_lost(beat)
    except RayActorError as error:
        reason = _first_line(error)
    if _WATCHED.get(actor_id(actor)) is lost:
        lost.get_loop().call_soon_threadsafe(lost.set_result, reason)
        await asyncio.to_thread(ray.kill, actor, no_restart=True)  # it may only be deaf, and hold a card


class RayWorker(Remote):
    """A child worker in a actor of its own, which `close` ends."""

    async def close(self) -> None:
        """End the worker's process, and with it the child's."""
        end_actor(self._actor)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
