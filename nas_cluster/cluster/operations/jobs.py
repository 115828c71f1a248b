"""Runs as jobs of a Ray cluster (Ray Jobs), by the run's name. Only the dashboard's port is needed.

A run's first job is `NAME@1`, the next `NAME@2`: Ray takes a job's id once, so of two who submit the same name at the
same moment one is refused by Ray itself.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobSubmissionClient

from nas_cluster.cluster.on_ray.connection import TOKEN_HINT
from nas_cluster.cluster.on_ray.private import dashboard_address, quiet, read_authentication_again
from nas_cluster.cluster.on_ray.token import use_available_token
from nas_cluster.core.errors import RunError, nearest

__all__ = ["Job", "Jobs"]

_RUN = "nas_cluster_run"
_ENDED = {"SUCCEEDED", "FAILED", "STOPPED"}
_STOPPED = 75
_POLL_SECONDS = 0.5
_RECONNECTS = 5


@dataclass(frozen=True)
class Job:
    """One attempt of a run. status: Ray's PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED. Times are in seconds."""

    run: str
    attempt: int
    job_id: str
    status: str
    exit_code: int | None
    started_at: float | None
    ended_at: float | None
    message: str
    metadata: Mapping[str, str]

    @property
    def ended(self) -> bool:
        """Whether its entry point is over."""
        return self.status in _ENDED

    @property
    def code(self) -> int:
        """Exit code of `nas-cluster` for a job that ended: that of its entry point, 75 when it was stopped."""
        if self.status == "STOPPED":
            return _STOPPED
        return self.exit_code if self.exit_code is not None else int(self.status != "SUCCEEDED")

    @property
    def resumable(self) -> bool:
        """Whether it is over before the run is; what was refused (2) would be again."""
        return self.ended and self.code not in (0, 2)


class Jobs:
    """The jobs of the cluster at `address` (http://HEAD:8265); None: RAY_API_SERVER_ADDRESS, RAY_ADDRESS, or the one on
    this machine. Raises RunError when nobody answers, or the token is wrong."""

    def __init__(self, address: str | None = None) -> None:
        use_available_token()
        read_authentication_again()
        quiet()
        if address is not None:
            os.environ["RAY_API_SERVER_ADDRESS"] = address  # Ray prefers the environment to what it is told
        self.told = address is not None
        """Whether the address was given, and must be given again: it does not stand in the environment."""
        self.address = address or os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS") or "auto"
        self._client = self._ask(lambda: JobSubmissionClient(address))

    def _ask(self, call: Any) -> Any:
        try:
            return call()
        except AuthenticationError as error:
            first = (str(error).splitlines() or [""])[0]
            raise RunError(f"{self.address}: {first.strip(': ')}; {TOKEN_HINT}") from error
        except (ConnectionError, requests.RequestException, ValueError) as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise RunError(f"{self.address}: no Ray cluster answers there ({first})") from error

    def newest(self) -> list[Job]:
        """The newest job of every run, oldest first."""
        newest: dict[str, Job] = {}
        for job in self._all():
            if job.run not in newest or job.attempt > newest[job.run].attempt:
                newest[job.run] = job
        return sorted(newest.values(), key=lambda job: job.started_at or 0)

    def find(self, run: str) -> Job:
        """The newest job of a run. Raises RunError with the nearest name."""
        jobs = self.newest()
        for job in jobs:
            if job.run == run:
                return job
        hint = nearest(run, [job.run for job in jobs], what="run") if jobs else "it has no runs"
        raise RunError(f"no run {run!r} was submitted to {self.address}: {hint}")

    def submit(
        self, run: str, entrypoint: str, folder: Path, environment: Mapping[str, str], about: Mapping[str, str]
    ) -> Job:
        """Start a job with `folder` as its working folder. Raises RunError when the run has one that is not over."""
        attempts = [job for job in self._all() if job.run == run]
        for job in attempts:
            if not job.ended:
                raise RunError(f"{run}: runs already as job {job.job_id} ({job.status.lower()})")
        number = max((job.attempt for job in attempts), default=0) + 1
        job_id = f"{run}@{number}"
        try:
            self._ask(
                lambda: self._client.submit_job(
                    entrypoint=entrypoint,
                    submission_id=job_id,
                    runtime_env={"working_dir": str(folder), "env_vars": dict(environment)},
                    metadata={_RUN: run, **about},
                )
            )
        except RuntimeError as error:
            if "already exists" in str(error):
                raise RunError(f"{run}: somebody else has just submitted it as job {job_id}") from error
            raise RunError(f"{self.address}: refused the job: {_reason(error)}") from error
        return self.refresh(job_id)

    def ask(self, entrypoint: str, folder: Path, *, seconds: float) -> str:
        """What a short command prints on the cluster; it leaves no job behind. Raises RunError when it fails."""
        job_id = f"nas_cluster-{secrets.token_hex(8)}"
        environment = {"working_dir": str(folder)}
        try:
            self._ask(
                lambda: self._client.submit_job(
                    entrypoint=entrypoint, submission_id=job_id, runtime_env=environment, metadata={}
                )
            )
            deadline = time.monotonic() + seconds
            while (status := self._client.get_job_status(job_id).value) not in _ENDED:
                if time.monotonic() >= deadline:
                    self.stop(job_id)
                    raise RunError(f"{self.address}: a job did not end in {seconds:g} s")
                time.sleep(_POLL_SECONDS)
            printed = self.logs(job_id)
            if status != "SUCCEEDED":
                said = [line for line in printed.splitlines() if line.startswith("nas-cluster: ")]
                reason = "\n".join(line.removeprefix("nas-cluster: ") for line in said)
                raise RunError(reason or f"{self.address}: {_reason(RuntimeError(printed))}")
            self._ask(lambda: self._client.delete_job(job_id))
        except RuntimeError as error:
            raise RunError(f"{self.address}: {_reason(error)}") from error
        return printed

    def refresh(self, job_id: str) -> Job:
        """How a job stands now."""
        details = self._ask(lambda: self._client.get_job_info(job_id))
        job = _job(details)
        assert job is not None
        return job

    def logs(self, job_id: str) -> str:
        """All that the job has printed. "" when the cluster cannot give it yet."""
        try:
            return str(self._ask(lambda: self._client.get_job_logs(job_id)))
        except RuntimeError:
            return ""

    def follow(self, job_id: str) -> Iterator[str]:
        """What the job prints, as it comes, until it is over; goes on after a connection that broke."""
        stream = self._follow(job_id)
        with asyncio.Runner() as runner:
            while True:
                text = runner.run(_next(stream))
                if text is None:
                    return
                yield text

    async def _follow(self, job_id: str) -> AsyncIterator[str]:
        said, broken = 0, 0
        while broken <= _RECONNECTS:
            skip = said
            try:
                async for text in self._client.tail_job_logs(job_id):
                    broken = 0
                    fresh, skip = text[skip:], max(0, skip - len(text))
                    said += len(fresh)
                    if fresh:
                        yield fresh
            except (RuntimeError, OSError):  # a port-forward that was renewed; the log is told from its beginning
                pass
            if self.refresh(job_id).ended:
                return
            broken += 1
            await asyncio.sleep(_POLL_SECONDS)
        raise RunError(f"{self.address}: the connection breaks again and again; the job {job_id} goes on")

    def wait(self, job_id: str, *, seconds: float, until: str = "") -> Job:
        """Wait for a job to end, or to print `until`; how it stands then, or after so many seconds."""
        deadline = time.monotonic() + seconds
        while True:
            job = self.refresh(job_id)
            if job.ended or time.monotonic() >= deadline or (until and until in self.logs(job_id)):
                return job
            time.sleep(_POLL_SECONDS)

    def stop(self, job_id: str) -> None:
        """Ask a job to stop (SIGTERM to its entry point)."""
        self._ask(lambda: self._client.stop_job(job_id))

    def authentication_on(self) -> bool:
        """Whether the cluster refuses who brings no token."""
        answer = self._ask(lambda: requests.get(f"{dashboard_address(self._client)}/api/jobs/", timeout=30))
        return answer.status_code in (401, 403)

    def _all(self) -> list[Job]:
        try:
            return [job for details in self._ask(self._client.list_jobs) if (job := _job(details)) is not None]
        except RuntimeError as error:
            raise RunError(f"{self.address}: {_reason(error)}") from error


async def _next(stream: AsyncIterator[str]) -> str | None:
    return await anext(stream, None)


def _job(details: JobDetails) -> Job | None:
    """None for jobs that are not ours."""
    metadata = details.metadata or {}
    run, _, number = (details.submission_id or "").rpartition("@")
    if metadata.get(_RUN) != run or not number.isdigit():
        return None
    return Job(
        run,
        int(number),
        details.submission_id,
        details.status.value,
        details.driver_exit_code,
        details.start_time / 1000 if details.start_time else None,
        details.end_time / 1000 if details.end_time else None,
        details.message or "",
        metadata,
    )


def _reason(error: BaseException) -> str:
    """The last line of what is often a traceback of the server."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
