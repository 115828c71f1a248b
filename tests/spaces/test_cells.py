"""What spaces of cells share: one representative of equal cells, words."""

import itertools
import random

import pytest

from nas_cluster.spaces._cells.canonical import canonical_steps
from nas_cluster.spaces._cells.step import Step
from nas_cluster.spaces._words import named_once


def test_every_order_of_a_cell_has_one_canonical_form():
    """All orders of cells of four steps with lists, against the least description found by trying them all."""
    draw = random.Random(0)
    for _ in range(30):
        steps = [
            Step(tuple((draw.randrange(n + 2), draw.choice("ab")) for _ in range(2)), draw.choice(["add", "concat"]))
            for n in range(4)
        ]
        listed = tuple(sorted(draw.sample(range(6), draw.randrange(3))))
        orders = [renumbered(steps, listed, order) for order in itertools.permutations(range(4))]
        possible = [order for order in orders if order is not None]
        assert canonical_steps(steps, listed) == min(possible)
        for shuffled, names in draw.sample(possible, min(5, len(possible))):
            assert canonical_steps(shuffled, names) == min(possible)


def renumbered(steps, listed, order):
    """The steps in that order with their halves ascending, and the listed states; None if a step would read a later."""
    names = {0: 0, 1: 1, **{old + 2: new + 2 for new, old in enumerate(order)}}
    placed = []
    for new, old in enumerate(order):
        halves = tuple(sorted((names[state], operation) for state, operation in steps[old].halves))
        if halves[-1][0] >= new + 2:
            return None
        placed.append(Step(halves, steps[old].combination))
    return tuple(placed), tuple(sorted(names[state] for state in listed))


def test_words_are_named_once():
    with pytest.raises(ValueError, match=r"each may be named once, got \['relu', 'tanh', 'relu'\]"):
        named_once(("relu", "tanh", "relu"))
