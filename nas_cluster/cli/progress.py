"""Live progress of `run`: a panel in a terminal, plain lines anywhere else."""

from __future__ import annotations

import queue
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from nas_cluster.cluster.messages import Progress

__all__ = ["ProgressView", "duration", "line"]

_LINE_SECONDS = 10.0
_UNREAD = 100
"""What is kept for a reader who does not read."""


class ProgressView:
    """Shows how a run stands; use it as a context manager and call `update`.

    A thread of its own writes: a pipe that nobody reads, or a terminal that was stopped, must not stop the search,
    which also goes on when its reader is gone.
    """

    def __init__(self, name: str, console: Console | None = None) -> None:
        self._name = name
        self._console = console or Console()
        self._live: Live | None = None
        self._last: Progress | None = None
        self._said = (0.0, -1)
        self._waiting = False
        self._news: queue.SimpleQueue[Progress | str | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write, name="progress", daemon=True)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = Live(console=self._console, refresh_per_second=4, transient=False)
            self._live.start()
            self._live.update(Panel(Text("starting ..."), title=self._name, border_style="dim"))
        else:
            self.say(f"{self._name}: starting")
        self._writer.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._news.put(None)
        self._writer.join()
        with suppress(OSError):
            if self._live is not None:
                self._live.stop()
            elif self._last is not None and self._said[1] != self._last.children_done:
                self._print_line(self._last)

    def update(self, progress: Progress) -> None:
        """Show this progress; outside a terminal a line every ten seconds, or every tenth of the children, and once
        what it waits for."""
        if self._news.qsize() < _UNREAD:
            self._news.put(progress)

    def say(self, text: str) -> None:
        """A line of its own, above the panel in a terminal."""
        self._news.put(text)

    def _write(self) -> None:
        try:
            while (news := self._news.get()) is not None:
                if isinstance(news, str):
                    self._print(news)
                else:
                    self._show(news)
        except OSError:
            pass  # nobody reads any more

    def _show(self, progress: Progress) -> None:
        self._last = progress
        if self._live is not None:
            self._live.update(panel(self._name, progress))
            return
        if progress.waits_for and not self._waiting:
            self._print(f"{self._name}: waiting for {progress.waits_for}")
        self._waiting = bool(progress.waits_for)
        done = progress.children_done
        tenth = (progress.max_children or 0) / 10
        due = time.monotonic() - self._said[0] >= _LINE_SECONDS or (tenth and done - self._said[1] >= tenth)
        if due and done != self._said[1]:
            self._print_line(progress)

    def _print_line(self, progress: Progress) -> None:
        self._said = (time.monotonic(), progress.children_done)
        self._print(f"{self._name}: {line(progress)}")

    def _print(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


def duration(seconds: float) -> str:
    """`75` to `1m 15s`."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    if hours:
        return f"{hours}h {minutes:02d}m"
    return f"{minutes}m {whole % 60:02d}s" if minutes else f"{whole}s"


def _number(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _of(done: int, most: int | None) -> str:
    return f"{done}" if most is None else f"{done}/{most}"


def line(p: Progress) -> str:
    """One line for a log."""
    left = "" if p.seconds_left is None else f", {duration(p.seconds_left)} left"
    return (
        f"{_of(p.children_done, p.max_children)} children done, {p.children_running} running, "
        f"{p.children_failed} failed, {p.children_cached} cached; "
        f"reward best {_number(p.best_reward)} mean {_number(p.mean_reward)}; "
        f"entropy {_number(p.entropy, 2)}, {p.updates} updates, staleness {p.mean_staleness:.1f}; "
        f"{duration(p.active_seconds)}{left}"
    )


def panel(name: str, p: Progress) -> Panel:
    """The picture of a running search, for 80 columns and more."""
    table = Table.grid(padding=(0, 2), expand=True)
    for _ in range(3):
        table.add_column(ratio=1, no_wrap=True)
    table.add_row(
        _pair("running", f"{p.children_running}"),
        _pair("queued", f"{p.children_queued}"),
        _pair("failed", f"{p.children_failed}", alert=p.children_failed > 0),
    )
    table.add_row(
        _pair("best reward", _number(p.best_reward)),
        _pair("mean reward", _number(p.mean_reward)),
        _pair("from cache", f"{p.children_cached}"),
    )
    table.add_row(
        _pair("entropy", _number(p.entropy, 2)),
        _pair("updates", f"{p.updates} ({p.updates_per_second:.1f}/s)"),
        _pair("staleness", f"{p.mean_staleness:.1f}"),
    )
    table.add_row(
        _pair("slots busy", f"{p.slots_busy}/{p.slots}"),
        _pair("time", duration(p.active_seconds)),
        _pair("left", "-" if p.seconds_left is None else duration(p.seconds_left)),
    )
    bar = Table.grid(expand=True)  # a bar by itself does not end its line
    bar.add_column(ratio=1)
    bar.add_row(ProgressBar(total=p.max_children or 100, completed=p.children_done if p.max_children else 0))
    head = Text(f"{_of(p.children_done, p.max_children)} children")
    parts: list[RenderableType] = [head, bar, table]
    if p.waits_for:
        parts.append(Text(f"waiting for {p.waits_for}", style="yellow", overflow="ellipsis", no_wrap=True))
    if p.last_event:
        parts.append(Text(p.last_event, style="yellow", overflow="ellipsis", no_wrap=True))
    return Panel(Group(*parts), title=name, border_style="dim")


def _pair(word: str, value: str, *, alert: bool = False) -> Text:
    return Text.assemble((f"{word} ", "dim"), (value, "bold red" if alert else "bold"))
