"""Runs jobs: the Python face of the package, and all that the command line does.

from nas_cluster import JobConfig, run, resume, load_run

record = run(JobConfig.load("configs/quickstart.yaml"))
for child in record.top(5): ...
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from nas_cluster.cluster.messages import Outcome, Progress
from nas_cluster.cluster.supervisor import Supervisor, stop_on_signals
from nas_cluster.cluster.wiring import Wiring, make_wiring
from nas_cluster.config import JobConfig
from nas_cluster.config.loading import apply_overrides, write_yaml
from nas_cluster.core.errors import RunError, RunStopped
from nas_cluster.datasets import resident
from nas_cluster.storage.journal import Journal
from nas_cluster.storage.layout import CONFIG, JOURNAL, is_remote, is_unfinished_journal, run_directory
from nas_cluster.storage.mirror import Mirror
from nas_cluster.storage.record import RunRecord

__all__ = ["execute", "load_run", "prepare", "resume", "resume_config", "run"]

OnProgress = Callable[[Progress], None]


def run(config: JobConfig, *, local: bool = False, on_progress: OnProgress = lambda progress: None) -> RunRecord:
    """Search until the budget is used; continue if this job was started before.

    local: everything in this process, without Ray. Raises UserError when the input is wrong and RunStopped when the run
    was stopped or could not go on; both leave a run that can be resumed.
    """
    outcome = execute(config, local=local, on_progress=on_progress)
    if outcome.ended != "done":
        raise RunStopped(outcome.reason)
    return load_run(run_directory(config.storage_path, config.name))


def resume(
    directory: str | Path,
    overrides: Sequence[str] = (),
    *,
    local: bool = False,
    on_progress: OnProgress = lambda progress: None,
) -> RunRecord:
    """Continue the run in `directory`; `overrides` may change its budget, topology and failure limits."""
    return run(resume_config(directory, overrides), local=local, on_progress=on_progress)


def load_run(directory: str | Path) -> RunRecord:
    """The record of a run, finished or running. Raises RunError: what is wrong with the directory."""
    return RunRecord.open(Path(directory))


def resume_config(directory: str | Path, overrides: Sequence[str] = ()) -> JobConfig:
    """The recorded config of a run with `overrides` applied."""
    directory = Path(directory)
    recorded = load_run(directory).config
    config = JobConfig.from_dict(apply_overrides(recorded, overrides), source=directory.name)
    if is_remote(config.storage_path):
        return config
    return config.model_copy(update={"storage_path": str(directory.resolve().parent), "name": directory.resolve().name})


def execute(config: JobConfig, *, local: bool = False, on_progress: OnProgress = lambda progress: None) -> Outcome:
    """One session of a job: prepare its directory, search, say how it ended. SIGINT and SIGTERM stop it cleanly."""
    directory = prepare(config)
    finished = _finished(config, directory)
    if finished is not None:
        return finished
    return asyncio.run(_session(config, directory, make_wiring(local), on_progress))


def prepare(config: JobConfig) -> Path:
    """Check what can be checked before anything is started, and make or check the run's directory.

    Raises DataError (dataset), ConfigError (space and dataset do not fit; the directory holds another job).
    """
    if config.estimator.uses_data:
        config.space.check(config.estimator.child_task(resident(config.dataset).task))
    directory = run_directory(config.storage_path, config.name)
    if is_remote(config.storage_path):
        Mirror(config.storage_path, config.name).pull(directory)
    if not (directory / JOURNAL).exists():
        if directory.exists() and not all(is_unfinished_journal(path) for path in directory.iterdir()):
            raise RunError(f"{directory}: is not empty and holds no run; choose another name or storage_path")
        Journal.create(directory, config.name, config.to_dict())
        (directory / CONFIG).write_text(write_yaml(config.to_dict()), encoding="utf-8")
        return directory
    recorded = JobConfig.from_dict(load_run(directory).config, source=str(directory))
    config.check_continues(recorded)
    if config.difference(recorded) or not (directory / CONFIG).exists():  # the coordinator records it
        (directory / CONFIG).write_text(write_yaml(config.to_dict()), encoding="utf-8")
    return directory


def _finished(config: JobConfig, directory: Path) -> Outcome | None:
    """The outcome of a job whose budget is used already: to run it again is to do nothing."""
    record = load_run(directory)
    if record.state() != "done" or config.difference(JobConfig.from_dict(record.config)):
        return None
    counts, best = record.counts(), record.top(1)
    progress = Progress(
        children_done=counts["done"],
        children_failed=counts["failed"],
        children_cached=counts["cached"],
        max_children=config.budget.max_children,
        best_reward=best[0].reward if best else None,
        best_child=str(best[0].child.child_id) if best else None,
        active_seconds=record.active_seconds(),
    )
    return Outcome("done", "the budget was used before", progress)


async def _session(config: JobConfig, directory: Path, wiring: Wiring, on_progress: OnProgress) -> Outcome:
    wiring.connect()  # before the signal handlers: ray.init sets one of its own
    try:
        with stop_on_signals() as stop:
            return await Supervisor(config, directory, wiring, on_progress).run(stop)
    finally:
        await wiring.close()
