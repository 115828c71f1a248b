"""One step of a cell as spaces of cells share it, whatever they call it and whatever else it has."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["INPUTS", "Step", "check_reads"]

INPUTS = 2
"""States 0 and 1 of a cell are its inputs; state `INPUTS + n` is the output of step n."""


class Step(NamedTuple):
    """A step does an operation on each of two states and combines the results.

    >>> first = Step(halves=((0, "identity"), (1, "sep_conv_3x3")), combination="add")
    >>> [state for state, operation in first.halves]
    [0, 1]
    """

    halves: tuple[tuple[int, str], ...]
    combination: str


def check_reads(inputs: Iterable[tuple[int, int]], word: str) -> None:
    """Raise ValueError unless each step reads earlier states only. word: what the space calls a step.

    >>> check_reads([(0, 1), (2, 2)], "block")
    """
    for number, states in enumerate(inputs):
        for state in states:
            if not 0 <= state < number + INPUTS:
                raise ValueError(f"{word} {number} reads state {state}, it has 0..{number + INPUTS - 1}")
