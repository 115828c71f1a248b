"""Commands that train children: run, resume, retrain."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import click

from nas_cluster import job
from nas_cluster.cli.jobs import ADDRESS, FOLLOW, jobs_of, watch_start
from nas_cluster.cli.progress import ProgressView
from nas_cluster.cli.tables import stage_text, training_line
from nas_cluster.cluster.messages import Outcome
from nas_cluster.config import JobConfig
from nas_cluster.config.loading import apply_overrides
from nas_cluster.doctor import check_storage
from nas_cluster.retrain import retrain as retrain_chosen
from nas_cluster.storage.layout import is_remote, run_directory

__all__ = ["resume", "retrain", "run"]

LOCAL = click.option("--local", is_flag=True, help="Everything in this process, without Ray: for debugging.")
OVERRIDES = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
EXIT_CODES = {"done": 0, "interrupted": 130}
STOPPED = 75


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@OVERRIDES
@LOCAL
@click.option("--shared-storage", is_flag=True, help="Refuse a storage_path that the cluster's nodes do not share.")
def run(config: Path, overrides: tuple[str, ...], local: bool, shared_storage: bool) -> None:
    """Search as CONFIG says, on this machine or at RAY_ADDRESS; continues if it was started before.

    KEY=VALUE overrides a setting: budget.max_children=100
    """
    loaded = JobConfig.load(config, overrides)
    if shared_storage and not local:
        click.echo(check_storage(loaded))
    _search(loaded, local, by_name=shared_storage)


@click.command()
@click.argument("run", metavar="RUN_DIR|NAME")
@OVERRIDES
@LOCAL
@ADDRESS
@FOLLOW
def resume(run: str, overrides: tuple[str, ...], local: bool, address: str | None, follow: bool) -> None:
    """Continue the run in RUN_DIR, or NAME as a job. KEY=VALUE may change budget, topology, failures, retrain,
    finalize and correlate."""
    jobs = None if local else jobs_of(run, address)
    if jobs is None:
        _search(job.resume_config(Path(run), overrides), local)
        return
    from nas_cluster.submit import resubmit

    watch_start(jobs, resubmit(run, jobs, overrides), follow)


def _search(config: JobConfig, local: bool, *, by_name: bool = False) -> None:
    with ProgressView(config.name) as view:
        outcome = job.execute(
            config,
            local=local,
            on_progress=view.update,
            on_training=lambda row: view.say(f"  {training_line(row)}"),
        )
        done, most = outcome.progress.children_done, config.budget.max_children
        if most is not None and done > most:
            view.say(f"{config.name}: {done} children were done before, more than budget.max_children={most}")
    with suppress(BrokenPipeError):  # the exit code says it too
        _say_outcome(outcome, config, by_name=by_name)
    code = EXIT_CODES.get(outcome.ended, STOPPED)
    if code:
        raise click.exceptions.Exit(code)


def _say_outcome(outcome: Outcome, config: JobConfig, *, by_name: bool) -> None:
    """How it ended, where it is, how to go on: a job of a cluster by its name, a run of this machine by its folder."""
    directory = run_directory(config.storage_path, config.name)
    if directory.is_relative_to(Path.cwd()):
        directory = directory.relative_to(Path.cwd())
    where = f"{config.storage_path.rstrip('/')}/{config.name}" if is_remote(config.storage_path) else directory
    done = outcome.progress.children_done
    if outcome.ended == "done":
        record = job.load_run(directory)
        click.echo(f"done: {done} children in {where}")
        if record.counts()["ok"] == 0 and (failures := record.failures()):
            last = max(failures, key=lambda one: one.last_at)
            count = sum(one.count for one in failures)
            click.echo(f"warning: all {count} children failed; the last: {last.cause}: {last.line}", err=True)
        if config.correlate is not None:
            from nas_cluster.report.correlation import correlation_of  # scipy

            click.echo(f"correlate: {correlation_of(record.trainings())}")
        click.echo(f"look: nas-cluster top {where} · nas-cluster report {where}")
    else:
        click.echo(f"{outcome.ended}: {outcome.reason}; {done} children are safe in {where}", err=True)
        click.echo(f"continue: nas-cluster resume {config.name if by_name else directory}", err=True)


@click.command()
@click.argument("run", metavar="RUN_DIR|CONFIG", type=click.Path(path_type=Path))
@OVERRIDES
@click.option("-k", "--top", default=1, show_default=True, type=click.IntRange(1), help="How many architectures.")
@click.option("--seeds", default=3, show_default=True, type=click.IntRange(1), help="Trainings of each.")
@click.option("-a", "--architecture", "architectures", multiple=True, help="This one instead: layerwise_cnn:nas_v1")
@click.option(
    "--grid", "grid", multiple=True, metavar="KEY=[V, ...]", help="Values of a training setting to try first."
)
@LOCAL
def retrain(
    run: Path,
    overrides: tuple[str, ...],
    top: int,
    seeds: int,
    architectures: tuple[str, ...],
    grid: tuple[str, ...],
    local: bool,
) -> None:
    """Train the best architectures of a run from scratch, at full size, and test each once.

    KEY=VALUE sets the training (retrain.epochs=50), the size (scale.extra_filters=40) or another dataset
    (dataset=cifar100). With a CONFIG instead of a RUN_DIR, --architecture says what to train.
    """
    if run.is_file():
        if not architectures:
            raise click.UsageError(f"{run}: is a config; a run directory has winners, a config needs --architecture")
        of_training = ("scale.", "retrain.")  # a config without `retrain` is retrained by its estimator: not known yet
        config = JobConfig.load(run, [text for text in overrides if not text.startswith(of_training)])
        run = job.prepare(config)
    results = retrain_chosen(
        run,
        top=top,
        seeds=seeds,
        architectures=architectures,
        grid=apply_overrides({}, [f"grid.{text}" for text in grid]).get("grid", {}) if grid else None,
        overrides=overrides,
        local=local,
        on_training=lambda row: click.echo(f"  {training_line(row)}"),
    )
    for result in results:
        click.echo(stage_text(result), nl=False)
