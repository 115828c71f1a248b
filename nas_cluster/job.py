"""Runs jobs: the Python face of the package, and all that the command line does.

from nas_cluster import JobConfig, run, resume, load_run

record = run(JobConfig.load("configs/quickstart.yaml"))
for row in record.top(5): ...

They work where an event loop runs already, in a notebook: the session then has a thread of its own, and whoever
interrupts them stops it cleanly, as in a terminal. `nas_cluster.start` does not wait for the end (`handle.py`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from nas_cluster.cluster.messages import Outcome, Progress
from nas_cluster.cluster.session.after_search import OnTraining, run_stages
from nas_cluster.cluster.session.backend import Backend
from nas_cluster.cluster.session.in_process import InProcess
from nas_cluster.cluster.session.stages import finalists_of
from nas_cluster.cluster.session.stop import Stop, stop_on_request
from nas_cluster.cluster.session.supervisor import Supervisor
from nas_cluster.cluster.session.threads import Session, run_session
from nas_cluster.config import JobConfig
from nas_cluster.config.loading import apply_overrides, write_yaml
from nas_cluster.config.rewards import todays
from nas_cluster.core.errors import RunError, RunStopped
from nas_cluster.storage.journal import Journal
from nas_cluster.storage.layout import (
    CONFIG,
    JOURNAL,
    STOP,
    is_remote,
    is_unfinished_journal,
    reading_directory,
    run_directory,
)
from nas_cluster.storage.mirror import Mirror
from nas_cluster.storage.record import RunRecord

__all__ = [
    "OnProgress",
    "ask_to_stop",
    "execute",
    "fetch",
    "load_run",
    "make_backend",
    "prepare",
    "record_of",
    "recorded_progress",
    "resume",
    "resume_config",
    "run",
    "session_of",
]

OnProgress = Callable[[Progress], None]

_WAIT_SECONDS = 0.2
_AFTER_SEARCH = {"retrain", "finalize", "correlate"}
"""Sections that a search which is done does not read."""


def run(
    config: JobConfig,
    *,
    local: bool = False,
    on_progress: OnProgress = lambda progress: None,
    on_training: OnTraining = lambda row: None,
) -> RunRecord:
    """Search until the budget is used, then run the config's `finalize`; continue if this job was started before.

    local: everything in this process, without Ray. Raises UserError when the input is wrong and RunStopped when the run
    was stopped or could not go on; both leave a run that can be resumed.
    """
    return record_of(config, execute(config, local=local, on_progress=on_progress, on_training=on_training))


def resume(
    directory: str | Path,
    overrides: Sequence[str] = (),
    *,
    local: bool = False,
    on_progress: OnProgress = lambda progress: None,
    on_training: OnTraining = lambda row: None,
) -> RunRecord:
    """Continue the run in `directory`; `overrides` may change its budget, topology, failure limits and
    what follows the search (`retrain`, `finalize`, `correlate`)."""
    config = resume_config(directory, overrides)
    return run(config, local=local, on_progress=on_progress, on_training=on_training)


def load_run(directory: str | Path) -> RunRecord:
    """The record of a run, finished or running. Raises RunError: what is wrong with the directory."""
    return RunRecord.open(Path(directory))


def fetch(url: str) -> Path:
    """The newest copy of the run that is mirrored to `url` (its storage_path and name), to be read on this machine.

    Raises RunError when there is none that is whole.
    """
    storage_path, _, name = url.rstrip("/").rpartition("/")
    directory = reading_directory(storage_path, name)
    try:
        Mirror(storage_path, name).pull(directory)
    except (OSError, ImportError, ValueError) as error:
        raise RunError(f"{url}: cannot be read: {error}") from error
    if not directory.exists():
        raise RunError(f"{url}: no run is mirrored there; write STORAGE_PATH/NAME")
    return directory


def resume_config(directory: str | Path, overrides: Sequence[str] = ()) -> JobConfig:
    """The recorded config of a run with `overrides` applied."""
    directory = Path(directory)
    recorded = load_run(directory).config
    config = JobConfig.from_dict(apply_overrides(todays(recorded), overrides), source=directory.name)
    if is_remote(config.storage_path):
        return config
    return config.model_copy(update={"storage_path": str(directory.resolve().parent), "name": directory.resolve().name})


def ask_to_stop(directory: str | Path, *, wait_seconds: float = 60.0) -> RunRecord:
    """Stop the run in `directory` as SIGTERM would, from another process of this machine; its record when it is over.

    Waits `wait_seconds` longer than the run's `failures.stop_grace`. Raises RunError when nothing runs there, or when
    it is not over by then.
    """
    directory = Path(directory)
    record = load_run(directory)
    if not record.live:
        raise RunError(f"{directory}: is not running on this machine ({record.state()})")
    (directory / STOP).touch()
    deadline = time.monotonic() + wait_seconds + record.config["failures"].get("stop_grace", 0.0)
    while record.live:
        if time.monotonic() >= deadline:
            raise RunError(f"{directory}: was asked to stop and still runs")
        time.sleep(_WAIT_SECONDS)
    return record


def execute(
    config: JobConfig,
    *,
    local: bool = False,
    on_progress: OnProgress = lambda progress: None,
    on_training: OnTraining = lambda row: None,
) -> Outcome:
    """One session of a job: prepare its directory, search, finalize, say how it ended. SIGINT and SIGTERM stop it
    cleanly. What is done already is not started again."""
    return run_session(session_of(config, local=local, on_progress=on_progress, on_training=on_training))


def session_of(config: JobConfig, *, local: bool, on_progress: OnProgress, on_training: OnTraining) -> Session[Outcome]:
    """What is left to do of a job, its directory prepared; whoever calls it decides where it runs."""
    directory = prepare(config)
    searched, finalized = _standing(config, directory)
    if searched is not None and finalized:
        return partial(_nothing, searched)
    return partial(_session, config, directory, searched, make_backend(local), on_progress, on_training)


def record_of(config: JobConfig, outcome: Outcome) -> RunRecord:
    """The record of a job whose session has ended. Raises RunStopped when the job is not done."""
    if outcome.ended != "done":
        raise RunStopped(outcome.reason)
    return load_run(run_directory(config.storage_path, config.name))


def make_backend(local: bool) -> Backend:
    """Ray actors, or with `local` everything in this process."""
    if local:
        return InProcess()
    if not os.environ.get("RAY_ADDRESS"):
        # Keeps a Ray of our own on loopback. Read when ray is imported, and despite its name on every system.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    from nas_cluster.cluster.on_ray.backend import RayBackend  # importing ray takes a second

    return RayBackend()


def prepare(config: JobConfig) -> Path:
    """Check what can be checked before anything is started, and make or check the run's directory.

    Raises DataError (dataset), ConfigError (space and dataset do not fit; the directory holds another job).
    """
    for job in (config, *(config.for_stage(stage) for stage in config.stages)):
        data = job.arrays()  # a dataset that only the last stage needs is missed now, not in a week
        task = job.estimator.child_task(None if data is None else data.task)
        if task is not None:
            job.space.check(task)
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


def _standing(config: JobConfig, directory: Path) -> tuple[Outcome | None, bool]:
    """(the outcome of a search whose budget is used already, whether nothing is left to do after it either)."""
    record = load_run(directory)
    changed = {key.partition(".")[0] for key in config.difference(JobConfig.from_dict(record.config))}
    changed -= {"storage_path"}  # where a run lies is no part of it
    if record.state_of("search") != "done" or changed - _AFTER_SEARCH:
        return None, False
    finalized = not config.stages or (not changed and record.state_of("finalize") == "done")
    return Outcome("done", "the budget was used before", recorded_progress(config, record)), finalized


def recorded_progress(config: JobConfig, record: RunRecord) -> Progress:
    """How far a run had come when it was last at work."""
    counts, best = record.counts(), record.top(1)
    return Progress(
        children_done=counts["done"],
        children_failed=counts["failed"],
        children_cached=counts["cached"],
        max_children=config.budget.max_children,
        best_reward=best[0].reward if best else None,
        best_child=str(best[0].child.child_id) if best else None,
        mean_reward=record.mean_reward(),
        updates=record.newest_version(),
        active_seconds=record.active_seconds(),
    )


async def _nothing(outcome: Outcome, stop: Stop) -> Outcome:
    """The session of a job of which nothing is left to do."""
    return outcome


async def _session(
    config: JobConfig,
    directory: Path,
    searched: Outcome | None,
    backend: Backend,
    on_progress: OnProgress,
    on_training: OnTraining,
    stop: Stop,
) -> Outcome:
    backend.connect()  # before the signal handlers: ray.init sets one of its own
    try:
        with stop_on_request(stop, directory):
            outcome = searched or await Supervisor(config, directory, backend, on_progress).run(stop)
            if outcome.ended == "done" and config.stages:
                return await _finalize(config, directory, outcome, backend, stop, on_training)
            return outcome
    finally:
        await backend.close()


async def _finalize(
    config: JobConfig, directory: Path, searched: Outcome, backend: Backend, stop: Stop, on_training: OnTraining
) -> Outcome:
    """The stages after the search. What they train and test stands in the journal."""
    candidates = finalists_of(load_run(directory))
    try:
        await run_stages(
            config, directory, config.stages, candidates, backend, kind="finalize", stop=stop, on_training=on_training
        )
    except RunStopped as error:
        return Outcome(stop.ended if stop.reason else "failed", str(error), searched.progress)
    return searched
