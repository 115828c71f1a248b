"""Commands that look at a job or a run and start nothing: plan, top, report, show, schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from nas_cluster import job
from nas_cluster.architectures import choose
from nas_cluster.cli.curves import curves_text
from nas_cluster.cli.places import READABLE
from nas_cluster.cli.tables import fields_text, plan_text, top_json, top_text
from nas_cluster.config import JobConfig
from nas_cluster.config.loading import apply_overrides
from nas_cluster.config.schema import job_schema
from nas_cluster.core.folders import cache_root
from nas_cluster.plan import make_plan
from nas_cluster.show import describe
from nas_cluster.storage.layout import REPORT

__all__ = ["plan", "report", "schema", "show", "top"]

RUN_DIR = click.argument("run_dir", metavar="RUN_DIR|URL", type=READABLE)
JSON = click.option("--json", "as_json", is_flag=True, help="For machines.")


def _print_json(data: Any) -> None:
    click.echo(json.dumps(data, indent=2, sort_keys=True))


@click.command()
@RUN_DIR
@click.option("-k", "--top", "count", default=10, show_default=True, type=click.IntRange(1), help="How many.")
@click.option("--curves", is_flag=True, help="And what they reported while they trained.")
@JSON
def top(run_dir: Path, count: int, curves: bool, as_json: bool) -> None:
    """The best distinct architectures of the run in RUN_DIR, or mirrored to URL."""
    record = job.load_run(run_dir)
    if as_json:
        _print_json(top_json(record, count, curves=curves))
    else:
        click.echo(top_text(record, count), nl=False)
        if curves:
            click.echo(curves_text(record, count), nl=False)


@click.command()
@RUN_DIR
@click.option("-o", "--output", type=click.Path(path_type=Path), help=f"Where to write; RUN_DIR/{REPORT} or NAME.html.")
def report(run_dir: Path, output: Path | None) -> None:
    """Write one self-contained HTML page about the run in RUN_DIR, or mirrored to URL."""
    from nas_cluster.report import write_report  # matplotlib takes a second to import

    record = job.load_run(run_dir)
    fetched = run_dir.is_relative_to(cache_root())
    place = output or (Path(f"{run_dir.name}.html") if fetched else run_dir / REPORT)
    click.echo(f"report: {write_report(record, place)}")


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@JSON
def plan(config: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """What CONFIG would do: topology, sizes, cost, the first sampled children. Starts nothing."""
    made = make_plan(JobConfig.load(config, overrides))
    if as_json:
        _print_json(made)
    else:
        click.echo(plan_text(made), nl=False)


@click.command()
@click.argument("architecture")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--task", "task_text", help="32x32x3/10 (images and classes) or 10000 (a vocabulary).")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Draw it into this SVG file.")
@JSON
def show(
    architecture: str, overrides: tuple[str, ...], task_text: str | None, output: Path | None, as_json: bool
) -> None:
    """An ARCHITECTURE: its size, and a picture of it.

    ARCHITECTURE is a published one (layerwise_cnn:nas_v1), one of a run (RUN_DIR:1 is its best, RUN_DIR:r0-u4-i1 a
    child), or in a file (layerwise_cnn:mine.json). KEY=VALUE sets an option of its space.
    """
    chosen = choose(architecture, options=apply_overrides({}, overrides))
    data = describe(chosen, task_text)
    if output is not None:
        from nas_cluster.report.drawing import picture_of

        output.write_text(picture_of(chosen.space.draw(chosen.architecture)), encoding="utf-8")
        data["picture"] = str(output)
    if as_json:
        _print_json({**data, "architecture": chosen.architecture.to_json()})
    else:
        click.echo(fields_text(data), nl=False)


@click.command()
def schema() -> None:
    """Print the JSON schema of a config, for editors."""
    _print_json(job_schema())
