"""A recurrent cell as plain data, a tree, since every node reads one earlier node; and the options of its children."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from nas_cluster.core.component import Options
from nas_cluster.nn.language_options import LanguageModelOptions
from nas_cluster.spaces.base import Architecture

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "RecurrentArchitecture",
    "RecurrentChildOptions",
    "RecurrentNode",
    "edge_name",
]

Activation = Literal["tanh", "relu", "identity", "sigmoid"]

ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)
"""They stand in the order of the released code's numbers (Pham et al. 2018, section 2.1)."""


class RecurrentNode(Options):
    """A node activates what comes from node `previous`; the first has none and reads x_t and h_{t-1}."""

    activation: Activation
    previous: int | None = None


class RecurrentArchitecture(Architecture):
    """Nodes stand in an order in which each reads an earlier one. h_t is the mean of the loose ends (nodes that no
    other reads), or of all nodes but the first."""

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
        """The nodes that read this one."""
        return tuple(n for n, node in enumerate(self.nodes) if node.previous == number)

    @property
    def averaged(self) -> tuple[int, ...]:
        """The nodes whose mean is h_t."""
        if self.average == "all":
            return tuple(range(1, len(self.nodes))) or (0,)
        read = {node.previous for node in self.nodes}
        return tuple(n for n in range(len(self.nodes)) if n not in read)

    def edges(self, *, per_activation: bool) -> list[str]:
        """The names of the matrices with which nodes 1, 2, ... read."""
        return [
            edge_name(number, node.previous, node.activation, per_activation=per_activation)
            for number, node in enumerate(self.nodes)
            if node.previous is not None
        ]

    @classmethod
    def of(cls, first: Activation, rest: Iterable[tuple[int, Activation]], average: str = "loose_ends") -> Self:
        """The cell with this activation of the first node and this (previous, activation) of the others."""
        nodes = [{"activation": first}, *({"previous": p, "activation": a} for p, a in rest)]
        return cls.model_validate({"nodes": nodes, "average": average})

    @classmethod
    def from_numbers(cls, numbers: Sequence[int], words: Sequence[Activation] = ACTIVATIONS) -> Self:
        """The cell that the released scripts write so: the first node's activation, then previous and activation of the
        others."""
        pairs = zip(numbers[1::2], numbers[2::2], strict=True)
        return cls.of(words[numbers[0]], [(p, words[a]) for p, a in pairs])


def edge_name(node: int, previous: int, activation: Activation, *, per_activation: bool) -> str:
    """The name of the matrices with which `node` reads `previous`; per_activation: and does so for this activation."""
    return f"{node}_{previous}" + (f"_{activation}" if per_activation else "")


class RecurrentChildOptions(LanguageModelOptions):
    """How the language model around a cell is built: one layer, decoder tied to the embeddings, without bias."""

    form: Literal["search", "final"] = "search"
    """search: with preset paper, batch norm after the mean, with the statistics of the texts at hand; final: no."""
    layers: int = Field(1, ge=1)
    tied: bool = True
    decoder_bias: bool = False
    variational: bool = True
    init_range: float | None = Field(None, gt=0)  # type: ignore[assignment]
    """All weights start uniform between minus and plus this; null: 0.025 in search, 0.04 in the final network."""

    @property
    def language_model(self) -> LanguageModelOptions:
        """The options of the language model alone, with the range that `form` asks for where none is given."""
        init_range = self.init_range or (0.025 if self.form == "search" else 0.04)
        return LanguageModelOptions(**self.model_dump(exclude={"form", "init_range"}), init_range=init_range)
