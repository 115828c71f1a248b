"""One controller replica (Zoph & Le 2017, Figure 3): pull, sample, have the children trained, push the gradient.

A strategy may learn from a minibatch in several epochs (PPO). Pushes are therefore numbered through: the gradient of
epoch e of minibatch `update` is push number update * learning_epochs + e, and a replica can go on at any number.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas_cluster.cluster.learners.partition import shard_slices
from nas_cluster.cluster.messages import (
    Admission,
    BatchRequest,
    BatchResult,
    CoordinatorClient,
    Push,
    Receipt,
    ShardClient,
)
from nas_cluster.core.errors import RunStopped
from nas_cluster.core.seeds import derive
from nas_cluster.spaces import SearchSpace
from nas_cluster.strategies import Gradient, Strategy
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
        self._epochs = strategy.learning_epochs
        self._seed = seed
        self._minibatch = minibatch
        self._servers = servers
        self._coordinator = coordinator
        self._proposer = strategy.proposer(space.decisions())

    async def run(self, push_number: int) -> None:
        """Go on with push `push_number` and step until no more children are admitted."""
        update, learning_epoch = divmod(push_number, self._epochs)
        try:
            if learning_epoch > 0:  # broken off between two epochs: the recorded proposal and rewards are learned from
                batch = await self._coordinator.recorded(self._index, update)
                admission = await self._learn(update, batch, first_epoch=learning_epoch)
                update += 1
            else:
                admission = await self._coordinator.admit(self._index, update)
            while admission is not None:
                admission = await self.step(update, admission)
                update += 1
        except RunStopped:
            pass

    async def step(self, update: int, admission: Admission) -> Admission | None:
        """One minibatch. Leave for the next, None when the search is over or stopping."""
        pulled = await self._servers.pull(self._index, update * self._epochs)
        spec = self._space.at(admission.first_number).decisions()
        sampling_seed = derive(self._seed, "sample", self._index, update)
        proposal = self._proposer.propose(pulled.weights, pulled.state, spec, self._minibatch, sampling_seed)
        request = BatchRequest(self._index, update, admission, pulled.version, pulled.digest(), proposal)
        batch = await self._coordinator.evaluate(request)  # intent and results are durable when this returns
        if batch is None:
            return None
        if not batch.learn:
            return await self._coordinator.admit(self._index, update + 1)
        return await self._learn(update, batch, pulled)

    async def _learn(
        self, update: int, batch: BatchResult, pulled: PulledWeights | None = None, first_epoch: int = 0
    ) -> Admission | None:
        """Push the minibatch's gradients: one, at the weights that sampled it, or several at those then current."""
        spec = self._space.at(batch.first_number).decisions()
        admission = None
        for learning_epoch in range(first_epoch, self._epochs):
            push_number = update * self._epochs + learning_epoch
            if pulled is None or self._epochs > 1:
                pulled = await self._servers.pull(self._index, push_number)
            if batch.rewards:
                gradient = self._proposer.gradient(pulled.weights, pulled.state, spec, batch.proposal, batch.rewards)
            else:  # all children are controls: the push only keeps the count
                gradient = None
            receipts = await self._servers.push(self._index, push_number, pulled, gradient, batch)
            scalars = gradient.scalars if gradient else {}
            admission = await self._coordinator.applied(self._index, update, learning_epoch, receipts, scalars)
        return admission

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

    async def pull(self, replica: int, push_number: int) -> PulledWeights:
        """The whole weight vector, its versions, and the strategy's state (kept by shard 0)."""
        parts = await asyncio.gather(*(shard.pull(replica, push_number) for shard in self._shards))
        weights = np.concatenate([part.weights for part in parts])
        return PulledWeights(weights, tuple(part.version for part in parts), parts[0].state or {})

    async def push(
        self, replica: int, push_number: int, pulled: PulledWeights, gradient: Gradient | None, batch: BatchResult
    ) -> list[Receipt]:
        """Give each shard its slice of the gradient; without one, a void push."""
        slices = shard_slices(len(pulled.weights), len(self._shards))
        parts = [None if gradient is None else gradient.vector[part] for part in slices]
        pushes = [
            Push(replica, push_number, version, part, batch.proposal.tokens, batch.rewards)
            for part, version in zip(parts, pulled.versions, strict=True)
        ]
        return list(await asyncio.gather(*(s.push(p) for s, p in zip(self._shards, pushes, strict=True))))
