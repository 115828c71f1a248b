"""Winners from scratch: the best architectures of a run, or any others, trained with several seeds and tested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from nas_cluster.architectures import choose
from nas_cluster.cluster.session.after_search import OnTraining, run_stages
from nas_cluster.cluster.session.backend import Backend
from nas_cluster.cluster.session.stages import Finalist, StageResult, finalists_of
from nas_cluster.cluster.session.stop import Stop, stop_on_request
from nas_cluster.cluster.session.threads import run_session
from nas_cluster.config import JobConfig, Stage
from nas_cluster.config.loading import apply_overrides
from nas_cluster.config.rewards import todays
from nas_cluster.core.component import validated
from nas_cluster.core.errors import RunError
from nas_cluster.core.evaluation import Child, ChildId
from nas_cluster.job import make_backend
from nas_cluster.storage.record import RunRecord

__all__ = ["retrain"]


def retrain(
    directory: str | Path,
    *,
    top: int = 1,
    seeds: int = 3,
    architectures: Sequence[str] = (),
    grid: Mapping[str, Sequence[Any]] | None = None,
    overrides: Sequence[str] = (),
    local: bool = False,
    on_training: OnTraining = lambda row: None,
) -> list[StageResult]:
    """Train the `top` best architectures with `seeds` seeds each, by the config's `retrain` estimator.

    architectures: these instead (`nas_cluster.architectures`). grid: settings of the estimator and their values; every
    combination is tried on the validation split first, and each architecture is trained with its best one.
    overrides: `retrain.epochs=50`, `scale.filters=64` (of the space's `child`), `dataset.kind=...` (transfer), and what
    else the job's config has. Returns one result for each stage; the last is the tested one.

    Raises RunError when the run has no scored child, ConfigError for wrong settings, RunStopped on a signal (what is
    done stays done).
    """
    directory = Path(directory).absolute()
    record = RunRecord.open(directory)
    scale = [text for text in overrides if text.startswith("scale.")]
    data = todays(record.config)
    if data.get("retrain") is None:
        data["retrain"] = data["estimator"]
    others = [text for text in overrides if text not in scale]
    config = JobConfig.from_dict(apply_overrides(data, others), source=directory.name)
    stages = _stages(top, seeds, apply_overrides({}, scale).get("scale", {}), grid or {})
    for stage in stages:
        config.check_stage(stage)
    candidates = [_named(config, text) for text in architectures] or finalists_of(record)
    if not candidates:
        raise RunError(f"{directory}: no child has been scored yet, nothing to retrain")
    if architectures:
        stages = [stage.model_copy(update={"top": len(candidates)}) for stage in stages]
    return run_session(partial(_run, config, directory, stages, candidates, make_backend(local), on_training))


def _stages(top: int, seeds: int, scale: dict[str, Any], grid: Mapping[str, Sequence[Any]]) -> list[Stage]:
    final = {"name": "retrain", "top": top, "seeds": seeds, "scale": scale, "test": True}
    stages = [validated(Stage, final, where="retrain")]
    if grid:
        stages.insert(0, validated(Stage, {"name": "grid", "top": top, "scale": scale, "grid": grid}, where="retrain"))
    return stages


def _named(config: JobConfig, text: str) -> Finalist:
    """An architecture that need not be of this run, as a child to train."""
    chosen = choose(text, space=config.space)
    if chosen.space.kind != config.space.kind:
        raise RunError(f"architecture {text!r}: is of space {chosen.space.kind!r}, the run's is {config.space.kind!r}")
    key = config.space.key(chosen.architecture)
    child = Child(ChildId(0, 0, 0), chosen.first_number, (), chosen.architecture.to_json(), key, seed=0)
    return Finalist(chosen.source, child)


async def _run(
    config: JobConfig,
    directory: Path,
    stages: Sequence[Stage],
    candidates: Sequence[Finalist],
    backend: Backend,
    on_training: OnTraining,
    stop: Stop,
) -> list[StageResult]:
    backend.connect()
    try:
        with stop_on_request(stop, directory):
            return await run_stages(
                config, directory, stages, candidates, backend, kind="retrain", stop=stop, on_training=on_training
            )
    finally:
        await backend.close()
