"""One representative of all cells that are the same labelled tree.

Renumbering the nodes permutes the weight matrices, and the mean does not depend on an order: isomorphic trees compute
the same functions. Branches are sorted by their own sorted form (Aho, Hopcroft and Ullman's normal form of a tree).
"""

from __future__ import annotations

from nas_cluster.spaces.enas_recurrent.architecture import Activation, RecurrentArchitecture

__all__ = ["canonical"]


def canonical(architecture: RecurrentArchitecture) -> RecurrentArchitecture:
    """The same cell, its nodes numbered from the first, branch by branch; the least branch comes first."""
    forms: dict[int, tuple[object, ...]] = {}
    for number in reversed(range(len(architecture.nodes))):  # who reads a node comes after it
        branches = sorted(forms[child] for child in architecture.children(number))
        forms[number] = (architecture.nodes[number].activation, *branches)
    rest: list[tuple[int, Activation]] = []

    def place(number: int, new: int) -> None:
        for child in sorted(architecture.children(number), key=lambda n: forms[n]):
            rest.append((new, architecture.nodes[child].activation))
            place(child, len(rest))

    place(0, 0)
    return RecurrentArchitecture.of(architecture.nodes[0].activation, rest, architecture.average)
