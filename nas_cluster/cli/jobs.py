"""Commands about runs wherever they are: submit, list, status, logs, stop, doctor.

RUN_DIR is a run on this machine. NAME is one that was submitted: with --address, or where RAY_API_SERVER_ADDRESS or
RAY_ADDRESS is set and no such folder is here.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nas_cluster import job
from nas_cluster.cli.tables import (
    findings_text,
    job_json,
    job_text,
    jobs_text,
    runs_json,
    runs_text,
    status_json,
    status_text,
)
from nas_cluster.config import JobConfig
from nas_cluster.core.errors import RunError
from nas_cluster.doctor import answer_line, examine, examine_through_jobs, findings
from nas_cluster.storage.layout import JOURNAL, LOGS

if TYPE_CHECKING:
    from nas_cluster.cluster.operations.jobs import Job, Jobs
    from nas_cluster.storage.record import RunRecord

__all__ = ["ADDRESS", "FOLLOW", "doctor", "jobs_of", "list_runs", "logs", "status", "stop", "submit", "watch_start"]

RUN = click.argument("run", metavar="RUN_DIR|NAME")
JSON = click.option("--json", "as_json", is_flag=True, help="For machines.")
ADDRESS = click.option("--address", metavar="URL", help="The cluster's dashboard: http://HEAD:8265, or a port-forward.")
FOLLOW = click.option("--follow", is_flag=True, help="Show the job's log until it ends; exit as it does.")
_START_SECONDS = 300.0
_STOP_SECONDS = 90.0
_FOLLOW_SECONDS = 0.5
_TAIL_BYTES = 20_000


def jobs_of(run: str, address: str | None) -> Jobs | None:
    """The cluster on which `run` is a job's name; None when it is a folder here."""
    if address is None and (not _address_in_environment() or (Path(run) / JOURNAL).exists()):
        return None
    from nas_cluster.cluster.operations.jobs import Jobs  # importing ray takes a second

    return Jobs(address)


def _address_in_environment() -> str | None:
    return os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS")


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@ADDRESS
@FOLLOW
@click.option(
    "--with",
    "include",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A file or folder that travels with the job, beside what the config names.",
)
def submit(
    config: Path, overrides: tuple[str, ...], address: str | None, follow: bool, include: tuple[Path, ...]
) -> None:
    """Search as CONFIG says as a job of a Ray cluster; continues the run if it was started before.

    The job carries this package, the config, your own modules and what the config names by a relative path.
    """
    loaded = JobConfig.load(config, overrides)
    from nas_cluster.cluster.operations.jobs import Jobs
    from nas_cluster.submit import submit as submit_job

    jobs = Jobs(address)
    started, carried = submit_job(loaded, jobs, include)
    if carried:
        click.echo(f"with {', '.join(carried)}")
    watch_start(jobs, started, follow)


def watch_start(jobs: Jobs, started: Job, follow: bool) -> None:
    """Show a job's log to its end, or wait until it is well on its way. Exits as the job does if that is over."""
    from nas_cluster.submit import STORAGE_CHECKED

    click.echo(f"submitted {started.run} to {jobs.address} as job {started.job_id}")
    if follow:
        _follow(jobs, started)
        ended = jobs.wait(started.job_id, seconds=_START_SECONDS)
    else:
        ended = jobs.wait(started.job_id, seconds=_START_SECONDS, until=f"\n{STORAGE_CHECKED}")
        if not ended.ended:
            there = f"{started.run} --address {jobs.address}" if jobs.told else started.run
            click.echo(f"look: nas-cluster logs -f {there} · stop: nas-cluster stop {there}")
            return
        click.echo(_own_lines(jobs.logs(started.job_id)) or ended.message, err=True)
    if ended.code:
        raise click.exceptions.Exit(ended.code)


@click.command("list")
@click.argument("storage", required=False, type=click.Path(path_type=Path))
@ADDRESS
@JSON
def list_runs(storage: Path | None, address: str | None, as_json: bool) -> None:
    """The runs in the folder STORAGE (runs), or those submitted to the cluster at --address or RAY_ADDRESS."""
    if storage is None and (address or _address_in_environment()):
        from nas_cluster.cluster.operations.jobs import Jobs

        found = Jobs(address).newest()
        click.echo(json.dumps([job_json(one) for one in found], indent=2) if as_json else jobs_text(found), nl=as_json)
        return
    storage = storage or Path("runs")
    if not storage.is_dir():
        raise RunError(f"{storage}: no such folder; runs are in a config's storage_path")
    records = [job.load_run(path.parent) for path in sorted(storage.glob(f"*/{JOURNAL}"))]
    click.echo(json.dumps(runs_json(records), indent=2) if as_json else runs_text(records), nl=as_json)


@click.command()
@RUN
@ADDRESS
@JSON
def status(run: str, address: str | None, as_json: bool) -> None:
    """How a run stands."""
    jobs = jobs_of(run, address)
    if jobs is None:
        record = job.load_run(Path(run))
        click.echo(
            json.dumps(status_json(record), indent=2, sort_keys=True) if as_json else status_text(record).rstrip()
        )
        return
    found = jobs.find(run)
    last = _last_progress(jobs.logs(found.job_id), run)
    click.echo(
        json.dumps({**job_json(found), "progress": last}, indent=2) if as_json else job_text(found, last).rstrip()
    )


@click.command()
@RUN
@click.option("-f", "--follow", is_flag=True, help="Go on until the run ends.")
@ADDRESS
def logs(run: str, follow: bool, address: str | None) -> None:
    """What a job printed, or what the children of the run in RUN_DIR did."""
    jobs = jobs_of(run, address)
    if jobs is None:
        _local_logs(job.load_run(Path(run)), follow)
        return
    found = jobs.find(run)
    if follow:
        _follow(jobs, found)
    else:
        click.echo(jobs.logs(found.job_id), nl=False)


@click.command()
@RUN
@ADDRESS
def stop(run: str, address: str | None) -> None:
    """Stop a run: a last snapshot, then it can be resumed. `failures.stop_grace` says what children in flight get."""
    jobs = jobs_of(run, address)
    if jobs is None:
        job.ask_to_stop(run)
        click.echo(status_text(job.load_run(run)), nl=False)
        return
    found = jobs.find(run)
    if found.ended:
        raise RunError(f"{run}: is not running (job {found.job_id} {found.status.lower()})")
    jobs.stop(found.job_id)
    grace = _STOP_SECONDS + float(found.metadata.get("stop_grace", 0))
    ended = jobs.wait(found.job_id, seconds=grace)
    if not ended.ended:
        raise RunError(f"{run}: was asked to stop and still runs as job {found.job_id}")
    click.echo(_own_lines(jobs.logs(found.job_id)) or job_text(ended, None).rstrip())


@click.command()
@click.argument("config", required=False, type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@ADDRESS
@JSON
@click.option("--here", is_flag=True, hidden=True, help="Answer in the words of one machine to another.")
def doctor(config: Path | None, overrides: tuple[str, ...], address: str | None, as_json: bool, here: bool) -> None:
    """Examine a cluster: versions, cards, clocks, authentication, and storage and room for CONFIG.

    Without --address the one at RAY_ADDRESS, or this machine. Exit code 2 when something would not work.
    """
    loaded = None if config is None else JobConfig.load(config, overrides)
    data = examine_through_jobs(loaded, address) if address and not here else examine(loaded)
    if here:
        click.echo(answer_line(data))
        return
    found = findings(data)
    click.echo(json.dumps(data, indent=2) if as_json else findings_text(found).rstrip())
    if any(level == "error" for level, _, _ in found):
        raise click.exceptions.Exit(2)


def _follow(jobs: Jobs, followed: Job) -> None:
    for text in jobs.follow(followed.job_id):
        click.echo(text, nl=False)


def _own_lines(text: str) -> str:
    """What our own entry point said last: its errors, or how it ended."""
    words = ("nas-cluster: ", "stopped: ", "interrupted: ", "failed: ", "done: ", "continue: ")
    return "\n".join(line.removeprefix(words[0]) for line in text.splitlines() if line.startswith(words))


def _last_progress(text: str, run: str) -> str | None:
    lines = [line for line in text.splitlines() if line.startswith(f"{run}: ")]
    return lines[-1].removeprefix(f"{run}: ") if lines else None


def _local_logs(record: RunRecord, follow: bool) -> None:
    """The end of every worker's log, each line with its worker; with `follow`, what comes."""
    places: dict[Path, int] = {}
    first = True
    while True:
        running = follow and record.live
        for path in sorted((record.directory / LOGS).glob("*.log")):
            size = path.stat().st_size
            start = places.get(path, max(0, size - _TAIL_BYTES) if first else 0)
            with path.open("rb") as file:
                file.seek(start if start <= size else 0)
                text = file.read()
            whole = text if not running else text[: text.rfind(b"\n") + 1]
            places[path] = (start if start <= size else 0) + len(whole)
            for line in whole.decode(errors="replace").splitlines():
                click.echo(f"{path.stem} | {line}")
        first = False
        if not running:
            return
        time.sleep(_FOLLOW_SECONDS)
