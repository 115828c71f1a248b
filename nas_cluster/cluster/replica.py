"""One controller replica (Zoph & Le 2017, Figure 3): pull, sample, have the children trained, push the gradient."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas_cluster.cluster.messages import BatchRequest, CoordinatorClient, Push, Receipt, ShardClient
from nas_cluster.cluster.partition import shard_slices
from nas_cluster.core.errors import RunStopped
from nas_cluster.core.seeds import derive
from nas_cluster.spaces import SearchSpace
from nas_cluster.strategies import Proposal, Strategy
from nas_cluster.strategies.base import State, Vector

__all__ = ["PulledWeights", "Replica", "Servers"]


class Replica:
    """Replica `index` of K. Its random numbers are named by (index, update): another replica changes none of them."""

    def __init__(
        self,
        index: int,
        *,
        space: SearchSpace[Any],
        strategy: Strategy,
        seed: int,
        minibatch: int,
        servers: Servers,
        coordinator: CoordinatorClient,
    ) -> None:
        self._index = index
        self._space = space
        self._strategy = strategy
        self._seed = seed
        self._minibatch = minibatch
        self._servers = servers
        self._coordinator = coordinator
        self._proposer = strategy.proposer(space.decisions())

    async def run(self, update: int) -> int:
        """Step from minibatch `update` until no more children are admitted; the number of the next minibatch."""
        try:
            while await self.step(update):
                update += 1
        except RunStopped:
            pass
        return update

    async def step(self, update: int) -> bool:
        """One minibatch. False when the search is over or stopping."""
        admission = await self._coordinator.admit(self._index, update)
        if admission is None:
            return False
        pulled = await self._servers.pull(self._index, update)
        spec = self._space.at(admission.first_number).decisions()
        sampling_seed = derive(self._seed, "sample", self._index, update)
        proposal = self._proposer.propose(pulled.weights, pulled.state, spec, self._minibatch, sampling_seed)
        request = BatchRequest(self._index, update, admission, pulled.version, pulled.digest(), proposal)
        batch = await self._coordinator.evaluate(request)  # intent and results are durable when this returns
        if batch is None:
            return False
        if batch.learn:
            spec = self._space.at(admission.first_number).decisions()
            gradient = self._proposer.gradient(pulled.weights, pulled.state, spec, batch.proposal, batch.rewards)
            receipts = await self._servers.push(
                self._index, update, pulled, gradient.vector, batch.proposal, batch.rewards
            )
            await self._coordinator.applied(self._index, update, receipts, gradient.scalars)
        return True

    async def initial_weights(self) -> dict[str, NDArray[np.float32]]:
        """The controller before its first update: the same from every replica."""
        seed = derive(self._seed, "controller")
        return dict(self._strategy.initial_weights(self._space.decisions(), seed))


@dataclass(frozen=True)
class PulledWeights:
    """All shards' answers to one pull."""

    weights: Vector
    versions: tuple[int, ...]
    state: State

    @property
    def version(self) -> int:
        """The oldest shard's version."""
        return min(self.versions)

    def digest(self) -> str:
        """Hash of weights and state: equal in two runs exactly when the controllers are bit-identical."""
        return hashlib.sha256(self.weights.tobytes() + repr(sorted(self.state.items())).encode()).hexdigest()[:16]


class Servers:
    """The S shards as one: every call goes to all of them at once."""

    def __init__(self, shards: Sequence[ShardClient]) -> None:
        self._shards = shards

    async def pull(self, replica: int, update: int) -> PulledWeights:
        """The whole weight vector, its versions, and the strategy's state (kept by shard 0)."""
        parts = await asyncio.gather(*(shard.pull(replica, update) for shard in self._shards))
        weights = np.concatenate([part.weights for part in parts])
        return PulledWeights(weights, tuple(part.version for part in parts), parts[0].state or {})

    async def push(
        self,
        replica: int,
        update: int,
        pulled: PulledWeights,
        gradient: Vector,
        proposal: Proposal,
        rewards: Sequence[float],
    ) -> list[Receipt]:
        """Give each shard its slice of the gradient."""
        slices = shard_slices(len(gradient), len(self._shards))
        pushes = [
            Push(replica, update, version, gradient[part], proposal.tokens, tuple(rewards))
            for part, version in zip(slices, pulled.versions, strict=True)
        ]
        return list(await asyncio.gather(*(s.push(p) for s, p in zip(self._shards, pushes, strict=True))))
