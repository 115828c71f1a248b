"""Runs as jobs of a cluster, from outside: submit, continue."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nas_cluster.bundle import JOB_FILE, pack
from nas_cluster.cluster.operations.jobs import Job, Jobs
from nas_cluster.config import JobConfig
from nas_cluster.config.loading import write_yaml
from nas_cluster.core.errors import ConfigError, RunError
from nas_cluster.core.folders import cache_root
from nas_cluster.storage.layout import check_run_name, is_remote

__all__ = ["STORAGE_CHECKED", "resubmit", "submit"]

STORAGE_CHECKED = "storage_path: "
"""Begins the line that an entry point prints once all nodes have been found to share the storage."""
_ENTRYPOINT = f"exec python -m nas_cluster.cli run {JOB_FILE} --shared-storage"
"""`exec`: Ray signals the entry point and its children, and there is then no shell among them."""
_STOP_SECONDS = 60
"""After so long, beside `failures.stop_grace`, Ray kills an entry point that was told to stop."""


def submit(config: JobConfig, jobs: Jobs, include: Sequence[Path] = ()) -> tuple[Job, list[str]]:
    """Start the run, or continue it; its job, and what of the user's own it carries.

    Raises ConfigError when the config cannot run on a cluster, RunError when the run is running.
    """
    if not is_remote(config.storage_path) and not Path(config.storage_path).is_absolute():
        raise ConfigError(
            f"storage_path: {config.storage_path!r} is a folder of this machine; on a cluster it is an absolute path "
            "or a URL that all nodes share, for instance storage_path=file:///mnt/shared/runs"
        )
    folder = _folder(config.name)
    carried = pack(config, folder, include)
    return _start(config, jobs, folder), carried


def resubmit(name: str, jobs: Jobs, overrides: Sequence[str] = ()) -> Job:
    """Continue a run that was submitted from this machine, as it was submitted but for `overrides`.

    Raises RunError when it was not; `submit` with its config continues it from anywhere.
    """
    folder = _folder(name)
    if not (folder / JOB_FILE).exists():
        raise RunError(
            f"{name}: was not submitted from this machine; `nas-cluster submit CONFIG` with its config continues it"
        )
    config = JobConfig.load(folder / JOB_FILE, overrides)
    (folder / JOB_FILE).write_text(write_yaml(config.to_dict()), encoding="utf-8")
    return _start(config, jobs, folder)


def _start(config: JobConfig, jobs: Jobs, folder: Path) -> Job:
    seconds = _STOP_SECONDS + int(config.failures.stop_grace)
    environment = {"RAY_JOB_STOP_WAIT_TIME_S": str(seconds)}
    about = {"storage_path": config.storage_path, "stop_grace": f"{config.failures.stop_grace:g}"}
    return jobs.submit(config.name, _ENTRYPOINT, folder, environment, about)


def _folder(name: str) -> Path:
    """Where what a run carries is put together; it stays, for `resume`."""
    return cache_root() / "jobs" / check_run_name(name)
