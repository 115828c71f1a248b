"""Winners from scratch: the top architectures of a run trained again with several seeds, and tested once each.

Retrainings are spread over the cluster like children and journaled like them: one that is done is never done again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nas_cluster.cluster.child_pool import ChildPool
from nas_cluster.cluster.messages import WorkerClient
from nas_cluster.cluster.supervisor import Stop, stop_on_signals
from nas_cluster.cluster.wiring import Wiring, make_wiring, pool_shape
from nas_cluster.config import JobConfig
from nas_cluster.config.loading import apply_overrides
from nas_cluster.core.clock import SystemClock
from nas_cluster.core.errors import RunError, RunStopped
from nas_cluster.core.evaluation import Child
from nas_cluster.core.seeds import derive
from nas_cluster.storage.journal import Journal
from nas_cluster.storage.record import RunRecord
from nas_cluster.storage.rows import ChildRow, RetrainRow

__all__ = ["retrain"]

OnDone = Callable[[RetrainRow], None]


def retrain(
    directory: str | Path,
    *,
    top: int = 1,
    seeds: int = 3,
    overrides: Sequence[str] = (),
    local: bool = False,
    on_done: OnDone = lambda row: None,
) -> list[RetrainRow]:
    """Train the `top` best architectures with `seeds` seeds each, by the config's `retrain` estimator.

    overrides: of that estimator (`retrain.epochs=50`). Returns the rows of exactly these settings, best rank first.
    Raises RunError when the run has no scored child, RunStopped on a signal (what is done stays done).
    """
    directory = Path(directory).absolute()
    record = RunRecord.open(directory)
    data = dict(record.config)
    if data.get("retrain") is None:
        data["retrain"] = data["estimator"]
    config = JobConfig.from_dict(apply_overrides(data, overrides), source=directory.name)
    chosen = record.top(top)
    if not chosen:
        raise RunError(f"{directory}: no child has been scored yet, nothing to retrain")
    return asyncio.run(_retrain(config, directory, chosen, seeds, make_wiring(local), on_done))


async def _retrain(
    config: JobConfig, directory: Path, chosen: Sequence[ChildRow], seeds: int, wiring: Wiring, on_done: OnDone
) -> list[RetrainRow]:
    assert config.retrain is not None
    settings = config.retrain.model_dump(mode="json")
    wanted = [
        RetrainRow(str(row.child.child_id), rank, seed, settings)
        for rank, row in enumerate(chosen, start=1)
        for seed in range(seeds)
    ]
    children = {str(row.child.child_id): row.child for row in chosen}
    wiring.connect()
    try:
        with Journal.open(directory) as journal, stop_on_signals() as stop:
            journal.plan_retrain(wanted)
            open_rows = [row for row in _matching(journal, wanted) if row.evaluation is None]
            if open_rows:
                shape = pool_shape(config, config.retrain, capacity=wiring.capacity(config), wanted=len(open_rows))

                async def spawn(index: int) -> WorkerClient:
                    return await wiring.spawn_worker(config, directory, index, test=True)

                pool = ChildPool(spawn, shape.workers, SystemClock(), slots_per_worker=shape.slots_per_worker)
                await _run_all(config, journal, pool, open_rows, children, stop, on_done)
            result = sorted(_matching(journal, wanted), key=lambda row: (row.rank, row.seed))
            journal.close("retrained")
            return result
    finally:
        await wiring.close()


async def _run_all(
    config: JobConfig,
    journal: Journal,
    pool: ChildPool,
    rows: Sequence[RetrainRow],
    children: dict[str, Child],
    stop: Stop,
    on_done: OnDone,
) -> None:
    """Train every row's child; each is committed when it is done."""

    async def one(row: RetrainRow) -> None:
        original = children[row.child_id]
        seed = derive(config.seed, "retrain", original.key, row.seed)
        scored = await pool.evaluate(Child(**{**vars(original), "seed": seed}))
        tested: Any = scored.evaluation.details.get("test_metric")
        journal.retrain_done(
            row.child_id, row.seed, row.settings, scored.evaluation, tested, finished_at=scored.finished_at
        )
        on_done(
            RetrainRow(row.child_id, row.rank, row.seed, row.settings, scored.evaluation, tested, scored.finished_at)
        )

    async def watch() -> None:
        await stop.wait()
        await pool.close()

    pool.start()
    watcher = asyncio.create_task(watch())
    try:
        results = await asyncio.gather(*(one(row) for row in rows), return_exceptions=True)
    finally:
        watcher.cancel()
        await pool.close()
    for result in results:
        if isinstance(result, BaseException):
            raise RunStopped(stop.reason) if stop.reason else result


def _matching(journal: Journal, wanted: Sequence[RetrainRow]) -> list[RetrainRow]:
    """The journal's rows for these children, seeds and settings."""
    keys = {(row.child_id, row.seed) for row in wanted}
    settings = wanted[0].settings
    return [row for row in journal.retrains() if (row.child_id, row.seed) in keys and row.settings == settings]
