"""Phases of a run: all workers together train what children share, between two updates of the controller.

A phase is planned (which architectures) and committed (loss, digest, file) in the journal. The file of the shared
tensors is the only state: a worker that holds another, or none, loads it. So a group that lost a member begins the
phase again from the file before, and a run that was broken off goes on from the last committed phase.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from nas_cluster.cluster.children.pool import ChildPool
from nas_cluster.cluster.coordinator.commits import Writer
from nas_cluster.cluster.messages import PartLost, ShardClient, WorkerClient
from nas_cluster.config import JobConfig
from nas_cluster.core.clock import Clock
from nas_cluster.core.decisions import Tokens
from nas_cluster.core.errors import RunError, RunStopped
from nas_cluster.core.phases import PhaseOrder, PhaseResult, PhaseSchedule, SharedState
from nas_cluster.core.seeds import derive, stream
from nas_cluster.storage.journal import Journal
from nas_cluster.storage.layout import shared_directory
from nas_cluster.storage.rows import PhaseRow

__all__ = ["Phases", "schedule_of", "shared_states"]

_KEPT = 2
"""Files of shared tensors: the last, and the one before, from which the last can be trained again."""


def schedule_of(config: JobConfig) -> PhaseSchedule | None:
    """When this job's workers train what its children share; None for children that share nothing."""
    return config.estimator.phases(config.arrays())


def shared_states(journal: Journal, config: JobConfig, directory: Path) -> list[SharedState]:
    """The shared tensors after every phase that is over, where this machine has their files."""
    folder = shared_directory(directory, config.storage_path)
    states = [row.state for row in journal.phases()]
    return [replace(state, path=str(folder / Path(state.path).name)) for state in states if state is not None]


class Phases:
    """Runs the phases of one session, and lets minibatches through whose phases are over.

    A phase begins when every minibatch before it is over: its children are scored with the tensors that they were
    sampled for.
    """

    def __init__(
        self,
        config: JobConfig,
        schedule: PhaseSchedule,
        directory: Path,
        writer: Writer,
        pool: ChildPool,
        clock: Clock,
    ) -> None:
        self._config = config
        self._schedule = schedule
        self._directory = shared_directory(directory, config.storage_path)
        self._journal, self._commit, self._note = writer.journal, writer.commit, writer.note
        self._pool = pool
        self._clock = clock
        self._lock = asyncio.Lock()
        self._open: set[tuple[int, int]] = set()
        """Minibatches under way, by (replica, update)."""
        self._changed = asyncio.Condition()
        self._stopping = False
        self._states = self._good_states(shared_states(writer.journal, config, directory))

    @property
    def state(self) -> SharedState | None:
        """What children are scored with now."""
        return self._states[-1] if self._states else None

    async def enter(self, minibatch: tuple[int, int], place: int, shards: Sequence[ShardClient]) -> bool:
        """Wait until what children share is trained as far as minibatch (replica, update) needs, whose place among all
        is `place`; False when the run stops meanwhile.

        Raises Diverged, and RunStopped when the group was lost too often or its members disagree.
        """
        if not self._over(place):
            async with self._changed:
                await self._changed.wait_for(lambda: not self._open or self._stopping)
            async with self._lock:
                while not self._stopping and not self._over(place):
                    await self._train(len(self._states), shards)
        if not self._stopping:
            self._open.add(minibatch)
        return not self._stopping

    async def leave(self, minibatch: tuple[int, int]) -> None:
        """A minibatch that was let through is over."""
        self._open.discard(minibatch)
        async with self._changed:
            self._changed.notify_all()

    def forget_minibatches(self) -> None:
        """Those that were under way come again."""
        self._open.clear()

    async def stop(self) -> None:
        """Let whoever waits go."""
        self._stopping = True
        async with self._changed:
            self._changed.notify_all()

    def _over(self, place: int) -> bool:
        return len(self._states) >= self._schedule.due(place)

    async def _train(self, phase: int, shards: Sequence[ShardClient]) -> None:
        row = PhaseRow(phase, await self._architectures(phase, shards), self._clock.now())
        await self._commit(lambda: self._journal.plan_phase(row))
        planned = self._journal.phase(phase)
        assert planned is not None
        target = self._directory / f"{phase:05d}.safetensors"
        self._directory.mkdir(parents=True, exist_ok=True)
        result = await self._as_group(planned, target)
        await self._commit(lambda: self._journal.phase_done(phase, str(target), result, finished_at=self._clock.now()))
        self._states.append(SharedState(phase, str(target), result.sha256))
        if phase >= _KEPT:
            (self._directory / f"{phase - _KEPT:05d}.safetensors").unlink(missing_ok=True)

    async def _architectures(self, phase: int, shards: Sequence[ShardClient]) -> tuple[tuple[Tokens, ...], ...]:
        """(S, M) architectures from the present policy, unless an earlier session has drawn them."""
        known = self._journal.phase(phase)
        if known is not None:
            return known.tokens
        schedule, space = self._schedule, self._config.space
        per_step = schedule.per_step or self._pool.workers
        steps = max(1, schedule.minibatches // per_step)
        count = steps * per_step
        seed = derive(self._config.seed, "phase", phase)
        tokens: Sequence[Tokens]
        if schedule.sample == "random":
            space = space.during(phase / schedule.phases)
            tokens = await asyncio.to_thread(lambda: [space.random(stream(seed, index)) for index in range(count)])
        else:
            spec = space.decisions()
            proposer = self._config.strategy.proposer(spec)
            states = await asyncio.gather(*(shard.snapshot(None) for shard in shards))
            weights = np.concatenate([state.arrays["weights"] for state in states])
            state = states[0].meta["state"] or {}
            tokens = (await asyncio.to_thread(proposer.propose, weights, state, spec, count, seed)).tokens
        return tuple(tuple(tokens[step * per_step : (step + 1) * per_step]) for step in range(steps))

    async def _as_group(self, row: PhaseRow, target: Path) -> PhaseResult:
        """The phase, begun again when a member is lost; the members must agree."""
        attempts = self._config.failures.max_restarts + 1
        for attempt in range(attempts):
            workers = await self._pool.all_ready()
            try:
                results = await self._attempt(row, target, workers)
            except PartLost as lost:
                self._note("group_restarted", {"phase": row.phase, "attempt": attempt, "reason": str(lost)})
                await self._pool.restart()
                continue
            digests = {result.digest for result in results}
            if len(digests) > 1:
                found = ", ".join(f"worker {rank} {r.digest[:12]}" for rank, r in enumerate(results))
                raise RunStopped(f"after phase {row.phase} the workers hold different shared tensors: {found}")
            return results[0]
        raise RunStopped(
            f"phase {row.phase}: the group of workers was lost {self._config.failures.max_restarts + 1} times"
        )

    async def _attempt(self, row: PhaseRow, target: Path, workers: Sequence[WorkerClient]) -> list[PhaseResult]:
        """One try of all workers at once; the first that fails ends it, as the others would wait for it for ever."""
        rendezvous = await workers[0].rendezvous() if len(workers) > 1 else ""
        parent = self._states[row.phase - 1] if row.phase > 0 else None
        orders = [
            PhaseOrder(row.phase, row.tokens, parent, str(target), rank, len(workers), rendezvous)
            for rank in range(len(workers))
        ]
        tasks = [asyncio.ensure_future(w.train_phase(o)) for w, o in zip(workers, orders, strict=True)]
        try:
            return list(await asyncio.gather(*tasks))
        except BaseException:
            for worker in workers:
                await worker.close()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise

    def _good_states(self, states: list[SharedState]) -> list[SharedState]:
        """The committed phases, as far as the last file is what was written; else as far as the one before."""
        while states and not _is_intact(states[-1]):
            lost = states.pop()
            self._note("shared_tensors_refused", {"phase": lost.phase, "path": lost.path})
            if states and not _is_intact(states[-1]):
                raise RunError(f"{states[-1].path}: neither this file nor the one after it is what was written")
        return states


def _is_intact(state: SharedState) -> bool:
    try:
        with Path(state.path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == state.sha256
    except OSError:
        return False
