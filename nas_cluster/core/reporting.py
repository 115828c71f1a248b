"""What a child says while it works: that it gets on, and how good it is by now.

Every training step is progress; silence for `failures.stall_limit` is none. What is reported is kept as the child's
learning curve. Whoever runs children listens; where nobody does, nothing happens.
"""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, SupportsIndex

from nas_cluster.core.evaluation import Report
from nas_cluster.core.metrics import BadMetric, finite, plain_values

__all__ = ["OnReport", "listen", "listening", "made", "report"]

OnReport = Callable[[Report], None]

_on_progress: Callable[[], None] | None = None
_on_report: OnReport | None = None
_on_report_here: ContextVar[OnReport | None] = ContextVar("_on_report_here", default=None)


def made() -> None:
    """This process's child has done a piece of its work; call it as often as you like."""
    if _on_progress is not None:
        _on_progress()


def report(step: SupportsIndex, **metrics: Any) -> None:
    """How this process's child stands after `step` (an epoch, from 1); of two reports of a step their union counts.

    step: an integer of Python, numpy or torch. A metric that is not finite is left out. Raises BadMetric for what is no
    step, or no metric at all.
    """
    try:
        place = -1 if isinstance(step, bool) else operator.index(step)
    except TypeError:
        place = -1
    if not 0 <= place < 2**63:
        raise BadMetric(f"step {step!r} is no number of a step; write 1, 2, 3, ...")
    known = finite(plain_values(metrics))
    listener = _on_report_here.get() or _on_report
    if listener is not None and known:
        listener(Report(place, known, time.time()))


def listen(on_progress: Callable[[], None], on_report: OnReport) -> None:
    """Have these called whenever the child of this process makes progress, or reports."""
    global _on_progress, _on_report
    _on_progress, _on_report = on_progress, on_report


@contextmanager
def listening(on_report: OnReport) -> Iterator[None]:
    """Have this called when the child of this coroutine reports, one of many in the process."""
    token = _on_report_here.set(on_report)
    try:
        yield
    finally:
        _on_report_here.reset(token)
