"""Snapshots of the parameter servers, and how S shards come back from one.

A snapshot file holds every shard's state: the named tensors' layout, and per shard its slice of weights and moments,
its version and its sequence table. Taken while replicas push; in synchronous mode at one version of all shards whose
round every replica has reported, in asynchronous mode each shard at its own (the tables say which gradients each has).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas_cluster.cluster.learners.parameter_server import fresh_state
from nas_cluster.cluster.learners.partition import Layout, shard_slices
from nas_cluster.cluster.messages import ShardClient, ShardState
from nas_cluster.config import JobConfig
from nas_cluster.core.errors import ConfigError, RunError
from nas_cluster.storage.journal import Journal
from nas_cluster.storage.layout import SNAPSHOTS
from nas_cluster.storage.snapshots import SnapshotStore

__all__ = ["Snapshots", "join_states", "resplit", "states_of"]


class Snapshots:
    """Takes and restores the snapshots of one run. mirror: copies the run to where it is mirrored, if it is."""

    def __init__(
        self, config: JobConfig, journal: Journal, directory: Path, mirror: Callable[[], Awaitable[None]]
    ) -> None:
        self._config = config
        self._journal = journal
        self._store = SnapshotStore(directory / SNAPSHOTS)
        self._mirror = mirror
        self._layout = Layout((), ())
        self._reports: Counter[int] = Counter()
        self._settled = 0
        self._last = 0
        self._busy = asyncio.Lock()

    async def restore(self, shards: Sequence[ShardClient]) -> dict[int, int] | None:
        """Load the newest good snapshot into the shards; each replica's next push, or None without a snapshot."""
        rows = self._journal.snapshots()
        if not rows:
            return None
        found, refused = self._store.newest_good(rows)
        for row, reason in refused:
            self._journal.event("snapshot_refused", version=row.version, reason=reason)
        if found is None:
            reasons = "; ".join(reason for _, reason in refused)
            raise RunError(f"no snapshot of this run can be read ({reasons}): restore its files from a backup")
        row, arrays, meta = found
        self._layout = Layout.from_json(meta["layout"])
        states = resplit(states_of(arrays, meta), len(shards))
        await asyncio.gather(*(shard.restore(state) for shard, state in zip(shards, states, strict=True)))
        self._last = self._settled = row.version
        self._reports.clear()
        return self._next_pushes(states)

    async def initialise(
        self, shards: Sequence[ShardClient], weights: Mapping[str, NDArray[np.float32]]
    ) -> dict[int, int]:
        """Cut the first weights into slices, restore every shard with its slice, and take snapshot 0."""
        self._layout = Layout.of(weights)
        vector = self._layout.flatten(weights)
        states = [
            fresh_state(vector[part], self._config.strategy, first_shard=index == 0)
            for index, part in enumerate(shard_slices(len(vector), len(shards)))
        ]
        await asyncio.gather(*(shard.restore(state) for shard, state in zip(shards, states, strict=True)))
        self._write(states)
        await self._mirror()
        return self._next_pushes(states)

    async def take_when_due(self, shards: Sequence[ShardClient], version: int) -> None:
        """A replica reports, and the journal holds, that its push is in all shards at `version`: take a snapshot when
        `snapshot_every` updates have passed since the last one. A synchronous round is complete when all have reported:
        replaying then starts with the first round of which the journal may lack something."""
        if self._config.mode == "synchronous":
            self._reports[version] += 1
            if self._reports[version] < self._config.topology.controller_replicas:
                return
            del self._reports[version]
            self._settled = version
        if version - self._last >= self._config.topology.snapshot_every and not self._busy.locked():
            await self.take(shards)

    async def take(self, shards: Sequence[ShardClient]) -> None:
        """Snapshot now: in synchronous mode the newest version that all shards still have and all replicas reported."""
        async with self._busy:
            version: int | None = None
            if self._config.mode == "synchronous":
                held = await asyncio.gather(*(shard.versions() for shard in shards))
                common = [v for v in set(held[0]).intersection(*held[1:]) if self._last < v <= self._settled]
                if not common:
                    return
                version = max(common)
            states = await asyncio.gather(*(shard.snapshot(version) for shard in shards))
            self._write(states)
            await self._mirror()

    def _write(self, states: Sequence[ShardState]) -> None:
        arrays, meta = join_states(states)
        version = min(state.version for state in states)
        row = self._store.write(version, arrays, {**meta, "layout": self._layout.to_json()})
        self._journal.add_snapshot(row)
        self._last = version
        old = self._store.old(self._journal.snapshots())
        self._journal.drop_snapshots([row.path for row in old])
        self._store.remove(old)

    def _next_pushes(self, states: Sequence[ShardState]) -> dict[int, int]:
        """Each replica goes on with the first push that some shard has not taken, or that the journal does not know.

        Replicas that the topology no longer has still finish minibatches that were planned for them.
        """
        wanted = set(range(self._config.topology.controller_replicas))
        if self._config.mode == "synchronous":
            return dict.fromkeys(sorted(wanted), states[0].version)
        tables = [state.meta["last_push"] for state in states]
        unapplied = self._journal.first_unapplied()
        pushes = {}
        for replica in sorted(wanted | set(unapplied)):
            pushes[replica] = min(table.get(str(replica), -1) for table in tables) + 1
            if replica in unapplied:
                update, epochs = unapplied[replica]
                pushes[replica] = min(pushes[replica], update * self._config.strategy.learning_epochs + epochs)
        return pushes


def join_states(states: Sequence[ShardState]) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """All shards' states as the arrays and JSON of one snapshot file."""
    arrays = {f"{index}.{name}": array for index, state in enumerate(states) for name, array in state.arrays.items()}
    return arrays, {"shards": [{"version": state.version, **state.meta} for state in states]}


def states_of(arrays: Mapping[str, NDArray[Any]], meta: Mapping[str, Any]) -> list[ShardState]:
    """Inverse of `join_states`."""
    states = []
    for index, shard in enumerate(meta["shards"]):
        own = {n.partition(".")[2]: a for n, a in arrays.items() if n.partition(".")[0] == str(index)}
        rest = {key: value for key, value in shard.items() if key != "version"}
        states.append(ShardState(shard["version"], own, rest))
    return states


def resplit(states: Sequence[ShardState], shards: int) -> list[ShardState]:
    """The same states cut for another number of shards; exact, or refused.

    Shards that stand at different gradients cannot be joined: a slice would miss some gradient or count it twice.
    """
    if len(states) == shards:
        return list(states)
    standing = [{**state.meta, "version": state.version, "state": None} for state in states]
    if any(other != standing[0] for other in standing):
        raise ConfigError(
            f"topology.parameter_shards: the last snapshot's {len(states)} shards stand at different gradients; "
            f"resume with parameter_shards={len(states)}, stop the run, then change it"
        )
    joined = {name: np.concatenate([state.arrays[name] for state in states]) for name in states[0].arrays}
    parts = shard_slices(len(joined["weights"]), shards)
    return [
        ShardState(
            states[0].version,
            {name: array[part] for name, array in joined.items()},
            {**states[0].meta, "state": states[0].meta["state"] if index == 0 else None},
        )
        for index, part in enumerate(parts)
    ]
