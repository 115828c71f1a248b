"""A recurrent cell as plain data: a tree, since every node reads one earlier node."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from nas_cluster.core.component import Options
from nas_cluster.spaces.base import Architecture

__all__ = ["ACTIVATIONS", "Activation", "RecurrentArchitecture", "RecurrentNode"]

Activation = Literal["tanh", "relu", "identity", "sigmoid"]

ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)
"""Pham et al. 2018, section 2.1, in the order of the released code's numbers."""


class RecurrentNode(Options):
    """The activation of what comes from node `previous`; the first node has none and reads x_t and h_{t-1}."""

    activation: Activation
    previous: int | None = None


class RecurrentArchitecture(Architecture):
    """Nodes in an order in which each reads an earlier one. h_t is the mean of the loose ends (nodes that no other
    reads), or of all nodes but the first."""

    nodes: tuple[RecurrentNode, ...] = Field(min_length=1)
    average: Literal["loose_ends", "all"] = "loose_ends"

    @model_validator(mode="after")
    def _read_backwards(self) -> Self:
        for number, node in enumerate(self.nodes):
            if number == 0 and node.previous is not None:
                raise ValueError(f"node 0 reads node {node.previous}; it is the first")
            if number and (node.previous is None or not 0 <= node.previous < number):
                raise ValueError(f"node {number} reads node {node.previous}, it has 0..{number - 1}")
        return self

    def children(self, number: int) -> tuple[int, ...]:
        """Nodes that read this one."""
        return tuple(n for n, node in enumerate(self.nodes) if node.previous == number)

    @property
    def averaged(self) -> tuple[int, ...]:
        """Nodes whose mean is h_t."""
        if self.average == "all":
            return tuple(range(1, len(self.nodes))) or (0,)
        read = {node.previous for node in self.nodes}
        return tuple(n for n in range(len(self.nodes)) if n not in read)

    @classmethod
    def of(cls, first: Activation, rest: Iterable[tuple[int, Activation]], average: str = "loose_ends") -> Self:
        """From the first node's activation and (previous, activation) of the others."""
        nodes = [{"activation": first}, *({"previous": p, "activation": a} for p, a in rest)]
        return cls.model_validate({"nodes": nodes, "average": average})

    @classmethod
    def from_numbers(cls, numbers: Sequence[int], words: Sequence[Activation] = ACTIVATIONS) -> Self:
        """From the released scripts' form: the first node's activation, then previous and activation of the others."""
        pairs = zip(numbers[1::2], numbers[2::2], strict=True)
        return cls.of(words[numbers[0]], [(p, words[a]) for p, a in pairs])
