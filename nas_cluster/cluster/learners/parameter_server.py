"""One parameter-server shard (Zoph & Le 2017, Figure 3): a slice of the controller's weights and its optimizer.

Synchronous mode: round n is over when all K replicas have pushed number n; their gradients are averaged in replica
order, so the result does not depend on who came first. Asynchronous mode: a gradient is applied when it comes; its
staleness (updates applied since its weights were pulled) is measured, and bounded as configured. Averages are over
children: a gradient weighs as much as the minibatch has children to learn from.

A push is known by (replica, number): a repeated one changes nothing. That table is part of the shard's state, so
after a restart every gradient still counts exactly once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np

from nas_cluster.cluster.messages import Pulled, Push, Receipt, ShardEmpty, ShardState
from nas_cluster.config import Topology
from nas_cluster.core.errors import RunStopped
from nas_cluster.strategies import AdamState, Strategy
from nas_cluster.strategies.base import State, Vector

__all__ = ["ParameterServer", "fresh_state"]

_KEPT = 2
"""Synchronous states kept in memory, so that all shards can be asked for the same version a little later."""


def fresh_state(weights: Vector, strategy: Strategy, *, first_shard: bool) -> ShardState:
    """State of a shard before its first update."""
    arrays = {"weights": weights, "first": np.zeros_like(weights), "second": np.zeros_like(weights)}
    meta = {"adam_updates": 0, "last_push": {}, "state": strategy.initial_state() if first_shard else None}
    return ShardState(0, arrays, meta)


class ParameterServer:
    """A shard. Empty, and refusing pulls, until `restore` gives it weights."""

    def __init__(self, strategy: Strategy, topology: Topology, *, synchronous: bool) -> None:
        self._strategy = strategy
        self._topology = topology
        self._synchronous = synchronous
        self._optimizer = strategy.optimizer
        self._changed = asyncio.Condition()
        self._weights: Vector | None = None
        self._adam: AdamState
        self._state: State | None = None
        self._version = 0
        self._last_push: dict[int, int] = {}
        self._halted = False
        self._round: dict[int, Push] = {}
        self._sum: Vector
        self._summed = 0
        self._summed_children = 0
        self._outstanding: dict[int, int] = {}
        self._kept: dict[int, ShardState] = {}

    async def restore(self, state: ShardState) -> None:
        """Take over a state; whatever was held before is gone."""
        arrays = {name: np.array(value, np.float32) for name, value in state.arrays.items()}
        self._weights = arrays["weights"]
        self._adam = AdamState(arrays["first"], arrays["second"], state.meta["adam_updates"])
        self._version = state.version
        self._state = state.meta["state"]
        self._last_push = {int(replica): number for replica, number in state.meta["last_push"].items()}
        self._sum = arrays.get("sum", np.zeros_like(self._weights))
        self._summed = state.meta.get("summed", 0)
        self._summed_children = state.meta.get("summed_children", 0)
        self._round.clear()
        self._outstanding.clear()
        self._kept = {self._version: self._current()} if self._synchronous else {}

    async def pull(self, replica: int, push_number: int) -> Pulled:
        """The slice at which `replica` samples, or takes the gradient of push `push_number`; in synchronous mode at
        the version of round `push_number`.

        Raises ShardEmpty before `restore`.
        """
        if self._weights is None:
            raise ShardEmpty("this shard holds no weights: it was restarted and not restored")
        async with self._changed:
            if self._synchronous:
                await self._wait_until(lambda: self._version >= push_number)
            self._outstanding[replica] = self._version
            self._changed.notify_all()
            return Pulled(self._weights.copy(), self._version, self._state)

    async def push(self, push: Push) -> Receipt:
        """Take a gradient. Returns when it has been applied, added up, or dropped."""
        if self._weights is None:
            raise ShardEmpty("this shard holds no weights: it was restarted and not restored")
        async with self._changed:
            if push.push_number <= self._last_push.get(push.replica, -1):
                return Receipt(self._version, 0, "duplicate")
            receipt = await (self._push_round(push) if self._synchronous else self._push_now(push))
            self._changed.notify_all()
            return receipt

    async def _push_round(self, push: Push) -> Receipt:
        self._round[push.replica] = push
        if len(self._round) == self._topology.controller_replicas:
            ordered = [self._round[replica] for replica in sorted(self._round)]
            self._round.clear()
            for one in ordered:
                self._add(one)
            self._apply_sum()
            if self._version % self._topology.snapshot_every == 0:
                self._kept = dict(sorted({**self._kept, self._version: self._current()}.items())[-_KEPT:])
        else:
            await self._wait_until(lambda: self._version > push.push_number)
        return Receipt(self._version, 0, "void" if push.void else "applied")

    async def _push_now(self, push: Push) -> Receipt:
        bound, how = self._topology.max_staleness, self._topology.stale_gradients
        if bound is not None and how == "wait" and not push.void:
            await self._wait_until(lambda: self._keeps_bound(push.replica, bound))
        self._outstanding.pop(push.replica, None)
        staleness = 0 if push.void else self._version - push.base_version
        scale, verdict = 1.0, "void" if push.void else "applied"
        if bound is not None and staleness > bound:
            scale, verdict = (
                ((bound + 1) / (staleness + 1), "down_weighted") if how == "down_weight" else (0.0, "dropped")
            )
        self._add(push, scale)
        if self._summed == self._topology.accumulate:
            self._apply_sum()
        elif scale > 0 and not push.void and not self._ends_minibatch(push):
            await self._wait_for_the_others()
        return Receipt(self._version, staleness, verdict)  # type: ignore[arg-type]

    async def _wait_for_the_others(self) -> None:
        """Before the next epoch of a minibatch whose gradient is only added up (`accumulate`): the epochs of a batch of
        several replicas' children follow each other only if each is at the weights that the one before has changed.
        Nobody waits when no other replica is at work, so the last ones of a search come to their end."""
        version = self._version
        self._changed.notify_all()
        await self._wait_until(lambda: self._version > version or not self._outstanding)

    def _keeps_bound(self, replica: int, bound: int) -> bool:
        """Whether every outstanding replica can still be applied in time if `replica` goes next.

        Earliest deadline first: a replica that pulled at version b must be applied before version b + bound is passed.
        As max_staleness is at least ceil((K-1)/accumulate), the replica with the oldest weights may always go, so
        waiting cannot deadlock.
        """
        others = sorted(base for other, base in self._outstanding.items() if other != replica)
        per_update = self._topology.accumulate
        return all(
            self._version + (self._summed + 1 + place) // per_update <= base + bound
            for place, base in enumerate(others)
        )

    def _add(self, push: Push, scale: float = 1.0) -> None:
        """Count a push and add its gradient up. The strategy's state (shard 0) learns the rewards of a minibatch with
        its last gradient, so all its epochs see the state before it, and each reward is observed once."""
        self._last_push[push.replica] = push.push_number
        if push.gradient is None:
            return
        if self._state is not None and self._ends_minibatch(push):
            self._state = self._strategy.observe(self._state, push.tokens, push.rewards)
        if scale > 0:
            self._sum += push.gradient * np.float32(scale * len(push.rewards))
            self._summed += 1
            self._summed_children += len(push.rewards)

    def _ends_minibatch(self, push: Push) -> bool:
        return (push.push_number + 1) % self._strategy.learning_epochs == 0

    def _apply_sum(self) -> None:
        """One update by the mean over the children added up; a round without any changes only the version."""
        assert self._weights is not None
        if self._summed:
            self._optimizer.apply(self._adam, self._weights, self._sum / np.float32(self._summed_children))
            self._sum, self._summed, self._summed_children = np.zeros_like(self._sum), 0, 0
        self._version += 1

    async def halt(self) -> None:
        """The run stops: whoever waits here for other replicas gets RunStopped. Nothing is lost: a gradient that was
        not applied is computed again from the journal when the run continues."""
        async with self._changed:
            self._halted = True
            self._changed.notify_all()

    async def _wait_until(self, condition: Callable[[], bool]) -> None:
        await self._changed.wait_for(lambda: self._halted or condition())
        if not condition():
            raise RunStopped("the run is stopping")

    async def versions(self) -> list[int]:
        """Versions `snapshot` can give, ascending; the last is the present one."""
        return sorted({*self._kept, self._version})

    async def snapshot(self, version: int | None = None) -> ShardState:
        """A copy of the state at `version` (one of `versions()`), or at present."""
        if self._weights is None:
            raise ShardEmpty("this shard holds no weights: nothing to snapshot")
        if version is None or version == self._version:
            return self._current()
        return self._kept[version]

    def _current(self) -> ShardState:
        assert self._weights is not None
        arrays = {
            "weights": self._weights.copy(),
            "first": self._adam.first.copy(),
            "second": self._adam.second.copy(),
        }
        meta: dict[str, Any] = {
            "adam_updates": self._adam.updates,
            "last_push": {str(replica): number for replica, number in sorted(self._last_push.items())},
            "state": self._state,
        }
        if not self._synchronous:
            arrays["sum"] = self._sum.copy()
            meta |= {"summed": self._summed, "summed_children": self._summed_children}
        return ShardState(self._version, arrays, meta)
