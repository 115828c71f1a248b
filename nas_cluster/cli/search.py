"""Commands that train children: run, resume, retrain."""

from __future__ import annotations

from pathlib import Path

import click

from nas_cluster import job
from nas_cluster.cli.progress import ProgressView
from nas_cluster.cluster.messages import Outcome
from nas_cluster.config import JobConfig
from nas_cluster.retrain import retrain as retrain_top
from nas_cluster.storage.layout import run_directory
from nas_cluster.storage.rows import RetrainRow

__all__ = ["resume", "retrain", "run"]

LOCAL = click.option("--local", is_flag=True, help="Everything in this process, without Ray: for debugging.")
OVERRIDES = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
RUN_DIR = click.argument("run_dir", type=click.Path(path_type=Path))
EXIT_CODES = {"done": 0, "interrupted": 130}
STOPPED = 75


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@OVERRIDES
@LOCAL
def run(config: Path, overrides: tuple[str, ...], local: bool) -> None:
    """Search as CONFIG says, on this machine or at RAY_ADDRESS; continues if it was started before.

    KEY=VALUE overrides a setting: budget.max_children=100
    """
    _search(JobConfig.load(config, overrides), local)


@click.command()
@RUN_DIR
@OVERRIDES
@LOCAL
def resume(run_dir: Path, overrides: tuple[str, ...], local: bool) -> None:
    """Continue the run in RUN_DIR. KEY=VALUE may change budget, topology, failures and retrain."""
    _search(job.resume_config(run_dir, overrides), local)


def _search(config: JobConfig, local: bool) -> None:
    directory = run_directory(config.storage_path, config.name)
    with ProgressView(config.name) as view:
        outcome = job.execute(config, local=local, on_progress=view.update)
    _say_outcome(outcome, directory)
    code = EXIT_CODES.get(outcome.ended, STOPPED)
    if code:
        raise click.exceptions.Exit(code)


def _say_outcome(outcome: Outcome, directory: Path) -> None:
    if directory.is_relative_to(Path.cwd()):
        directory = directory.relative_to(Path.cwd())
    done = outcome.progress.children_done
    if outcome.ended == "done":
        click.echo(f"done: {done} children in {directory}")
        click.echo(f"look: nas-cluster top {directory} · nas-cluster report {directory}")
    else:
        click.echo(f"{outcome.ended}: {outcome.reason}; {done} children are safe in {directory}", err=True)
        click.echo(f"continue: nas-cluster resume {directory}", err=True)


@click.command()
@RUN_DIR
@OVERRIDES
@click.option("-k", "--top", default=1, show_default=True, type=click.IntRange(1), help="How many architectures.")
@click.option("--seeds", default=3, show_default=True, type=click.IntRange(1), help="Trainings of each.")
@LOCAL
def retrain(run_dir: Path, overrides: tuple[str, ...], top: int, seeds: int, local: bool) -> None:
    """Train the best architectures from scratch at full size and test each once.

    KEY=VALUE sets the training: retrain.epochs=50
    """

    def say(row: RetrainRow) -> None:
        click.echo(f"  {_describe(row)}")

    rows = retrain_top(run_dir, top=top, seeds=seeds, overrides=overrides, local=local, on_done=say)
    for rank in sorted({row.rank for row in rows}):
        group = [row for row in rows if row.rank == rank]
        click.echo(_summarise(rank, group))


def _describe(row: RetrainRow) -> str:
    assert row.evaluation is not None
    if row.evaluation.status == "failed":
        return (
            f"rank {row.rank} {row.child_id} seed {row.seed}: failed: {row.evaluation.cause}: {row.evaluation.message}"
        )
    tested = "" if row.test_metric is None else f", test {row.test_metric:.4f}"
    return f"rank {row.rank} {row.child_id} seed {row.seed}: validation {row.evaluation.metric:.4f}{tested}"


def _summarise(rank: int, rows: list[RetrainRow]) -> str:
    tested = [row.test_metric for row in rows if row.test_metric is not None]
    if not tested:
        return f"rank {rank} {rows[0].child_id}: no result"
    mean = sum(tested) / len(tested)
    spread = (sum((value - mean) ** 2 for value in tested) / max(1, len(tested) - 1)) ** 0.5
    return f"rank {rank} {rows[0].child_id}: test {mean:.4f} ± {spread:.4f} over {len(tested)} seeds"
