"""One representative of all cells that differ only in the order of halves and in the numbers of steps."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from nas_cluster.spaces._cells.step import INPUTS, Step

__all__ = ["canonical_steps"]

_Names = dict[int, int]
"""The new number of each state that has one."""
_Beginning = tuple[_Names, tuple[Step, ...]]


def canonical_steps(steps: Sequence[Step], listed: Collection[int] = ()) -> tuple[tuple[Step, ...], tuple[int, ...]]:
    """Of all orders in which each step reads only earlier states, the one with the lexicographically least description;
    and the states `listed`, which the space names in their own right, by their new numbers.

    The result does not depend on the order given, so it is the same for cells that differ only in their numbers, and it
    is its own canonical form. Steps are placed one by one; of equally good beginnings those that leave the same rest
    are followed once, so that many like steps cost little.

    >>> one, other = Step(((1, "pool"), (0, "pool")), "add"), Step(((0, "conv"), (0, "conv")), "add")
    >>> steps, _ = canonical_steps([one, other])
    >>> steps == canonical_steps([other, one])[0], [step.halves for step in steps]
    (True, [((0, 'conv'), (0, 'conv')), ((0, 'pool'), (1, 'pool'))])
    """
    beginnings: list[_Beginning] = [({state: state for state in range(INPUTS)}, ())]
    for number in range(INPUTS, len(steps) + INPUTS):
        longer: dict[object, _Beginning] = {}
        for names, placed in beginnings:
            for state, step in enumerate(steps, start=INPUTS):
                if state not in names and all(source in names for source, _ in step.halves):
                    following = {**names, state: number}
                    described = _described(step, names)
                    rest = _rest(steps, listed, following)
                    longer.setdefault((described, rest), (following, (*placed, described)))
        least = min(placed for _, placed in longer.values())
        beginnings = [beginning for beginning in longer.values() if beginning[1] == least]
    return beginnings[0][1], min(_renamed(listed, names) for names, _ in beginnings)


def _described(step: Step, names: _Names) -> Step:
    """The step with new numbers, its halves in ascending order; a state that has none yet keeps minus its old one."""
    return Step(tuple(sorted((names.get(s, -s), operation) for s, operation in step.halves)), step.combination)


def _renamed(listed: Collection[int], names: _Names) -> tuple[int, ...]:
    """The listed states that have new numbers, by these."""
    return tuple(sorted(names[state] for state in listed if state in names))


def _rest(steps: Sequence[Step], listed: Collection[int], names: _Names) -> object:
    """What is still to be placed; an old number counts only where something still refers to it."""
    rest = {state: step for state, step in enumerate(steps, start=INPUTS) if state not in names}
    read = {source for step in rest.values() for source, _ in step.halves}
    entries = [
        (state if state in read else 0, _described(step, names), state in listed) for state, step in rest.items()
    ]
    return tuple(sorted(entries)), _renamed(listed, names)
