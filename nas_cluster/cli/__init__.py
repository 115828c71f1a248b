"""The command line: what was asked, no logic.

Exit codes: 0 done; 2 the input is wrong (one line, no traceback); 75 stopped, resumable; 130 interrupted, resumable;
1 a bug of ours, with a traceback.
"""

from __future__ import annotations

import difflib
import sys
from pathlib import Path
from typing import Any

import click

from nas_cluster import __version__
from nas_cluster.cli.chaos import chaos
from nas_cluster.cli.jobs import doctor, list_runs, logs, status, stop, submit
from nas_cluster.cli.look import plan, report, schema, show, top
from nas_cluster.cli.search import resume, retrain, run
from nas_cluster.core.errors import RunStopped, UserError

__all__ = ["main"]

STOPPED = 75


class Commands(click.Group):
    """A group that answers a mistyped command with the nearest one."""

    def resolve_command(self, context: click.Context, args: list[str]) -> tuple[Any, Any, list[str]]:
        """Find the command, or say in one line which was probably meant."""
        if args and not args[0].startswith("-") and self.get_command(context, args[0]) is None:
            known = self.list_commands(context)
            close = difflib.get_close_matches(args[0], known, n=1)
            hint = f"did you mean '{close[0]}'? " if close else ""
            raise click.UsageError(f"no command '{args[0]}'; {hint}(commands: {', '.join(known)})")
        return super().resolve_command(context, args)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="nas-cluster")
def commands() -> None:
    """Neural architecture search as a job on a Ray cluster."""


for command in (
    *(run, submit, resume, list_runs, status, logs, stop, top, report, retrain, show, plan, doctor, chaos, schema),
):
    commands.add_command(command)


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `nas-cluster`: turns outcomes into exit codes."""
    sys.path.insert(0, str(Path.cwd()))  # a user's own space or estimator stands beside the config
    try:
        code = commands.main(arguments, prog_name="nas-cluster", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.Abort:
        sys.exit(130)
    except click.ClickException as error:
        _say(error.format_message())
        sys.exit(2)
    except UserError as error:
        _say(str(error))
        sys.exit(2)
    except RunStopped as stopped:
        _say(f"stopped: {stopped}")
        sys.exit(STOPPED)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)


def _say(message: str) -> None:
    for line in message.splitlines():
        click.echo(f"nas-cluster: {line}", err=True)


if __name__ == "__main__":
    main()
