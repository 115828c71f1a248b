"""Command that breaks a run on purpose: chaos."""

from __future__ import annotations

import json
import os
from contextlib import AbstractContextManager
from pathlib import Path

import click

from nas_cluster.cli.places import HERE
from nas_cluster.cluster.operations.chaos import FAULTS, ChaosReport, Injected, Targets, check_faults, inject
from nas_cluster.core.errors import ConfigError

__all__ = ["chaos"]

_DEFAULT = "child,worker,shard,replica"


@click.command()
@click.argument("run_dir", metavar="RUN_DIR|NAME", type=HERE)
@click.option("--seed", default=0, show_default=True, help="Of the choice of faults and targets.")
@click.option("--minutes", default=5.0, show_default=True, type=click.FloatRange(min=0, min_open=True))
@click.option("--every", default=20.0, show_default=True, type=click.FloatRange(min=1), help="Seconds between faults.")
@click.option("--faults", default=_DEFAULT, show_default=True, help=f"Which, of {', '.join(FAULTS)}.")
@click.option("--json", "as_json", is_flag=True, help="The report for machines.")
def chaos(run_dir: Path, seed: int, minutes: float, every: float, faults: str, as_json: bool) -> None:
    """Kill random parts of the running search RUN_DIR, at RAY_ADDRESS, and report how soon it notices and goes on.

    For clusters of your own. Run it on the node where the search was started. node_stop ends everything that Ray runs
    on a node, node_drain does so 30 s after it was told; nothing here starts it again.
    """
    wanted = check_faults([name.strip() for name in faults.split(",") if name.strip()])
    if not wanted:
        raise ConfigError(f"--faults: name at least one of {', '.join(FAULTS)}")
    if not os.environ.get("RAY_ADDRESS"):
        raise ConfigError("RAY_ADDRESS: is not set; say which cluster the run is on (auto: the one on this machine)")
    with _targets_of(run_dir) as targets:
        report = inject(
            run_dir,
            targets,
            seed=seed,
            minutes=minutes,
            every=every,
            faults=wanted,
            on_fault=(lambda injected: None) if as_json else lambda injected: click.echo(_line(injected)),
        )
    click.echo(json.dumps(report.to_json(), indent=2) if as_json else _summary(report))


def _targets_of(run_dir: Path) -> AbstractContextManager[Targets]:
    from nas_cluster.cluster.operations.targets import RayTargets  # importing ray takes a second

    return RayTargets(run_dir)


def _line(injected: Injected) -> str:
    noticed, went_on = (
        "not" if seconds is None else f"{seconds:.1f} s" for seconds in (injected.noticed, injected.went_on)
    )
    return f"{injected.at:7.1f} s  {injected.fault:<10} {injected.target:<14} noticed {noticed}, went on {went_on}"


def _summary(report: ChaosReport) -> str:
    account = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in report.account.items())
    return f"{len(report.injected)} faults, seed {report.seed}; the run: {report.state}\nchildren: {account}"
