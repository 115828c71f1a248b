"""How a child says that it gets on: every training step is progress, silence for `failures.stall_limit` is none."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["listen", "made"]

_listener: Callable[[], None] | None = None


def made() -> None:
    """This process's child has done a piece of its work; call it as often as you like."""
    if _listener is not None:
        _listener()


def listen(listener: Callable[[], None]) -> None:
    """Have `listener` called whenever the child of this process makes progress."""
    global _listener
    _listener = listener
