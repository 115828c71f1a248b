"""A recurrent cell as plain data (Zoph & Le 2017, section 3.4): a binary tree over x_t and h_{t-1}.

Nodes of base b: leaves 0 to b-1, internal nodes b to 2b-2; node b+i has the children 2i and 2i+1. A child has no
options beyond those of its language model (nn/language_options.py).
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from nas_cluster.core.component import Options
from nas_cluster.spaces.base import Architecture
from nas_cluster.spaces.recurrent_tree.published import Rows

__all__ = ["Activation", "Combination", "TreeArchitecture", "TreeNode"]

Combination = Literal["add", "elem_mult", "max"]
Activation = Literal["identity", "tanh", "sigmoid", "relu", "sin"]

_SHORT = {"add": "+", "elem_mult": "\N{MULTIPLICATION SIGN}", "max": "max ", "identity": "id", "sigmoid": "sig"}


class TreeNode(Options):
    """A node combines two values, then activates the result."""

    combination: Combination
    activation: Activation

    def __str__(self) -> str:
        """The node in short: `+sig` is the sigmoid of a sum."""
        return _SHORT[self.combination] + _SHORT.get(self.activation, self.activation)


class TreeArchitecture(Architecture):
    """A cell. Leaf i computes act(W_i x_t ∘ U_i h_{t-1}), an internal node act(left ∘ right); h_t is the root's value.

    `cell_from`: the node whose value before its activation is c_t. `cell_into`: the node whose value v becomes
    act(v ∘ c_{t-1}), with the combination and activation of `inject`, before anyone reads it.
    """

    nodes: tuple[TreeNode, ...] = Field(min_length=3)
    inject: TreeNode
    cell_from: int = Field(ge=0)
    cell_into: int = Field(ge=0)

    @model_validator(mode="after")
    def _is_a_tree(self) -> Self:
        if len(self.nodes) % 2 == 0 or self.base & (self.base - 1):
            raise ValueError(f"nodes: {len(self.nodes)} nodes, a tree of b leaves has 2b-1 with b a power of two")
        for name, node in (("cell_from", self.cell_from), ("cell_into", self.cell_into)):
            if node >= len(self.nodes):
                raise ValueError(f"{name}: {node} is not a node, the last is {len(self.nodes) - 1}")
        return self

    @property
    def base(self) -> int:
        """The number of leaves."""
        return (len(self.nodes) + 1) // 2

    @property
    def root(self) -> int:
        """The node whose value is h_t: the last."""
        return len(self.nodes) - 1

    def children(self, node: int) -> tuple[int, int]:
        """The two nodes that an internal node reads, left and right."""
        first = 2 * (node - self.base)
        return first, first + 1

    @property
    def levels(self) -> tuple[range, ...]:
        """The nodes of each level: the leaves come first, the root last."""
        levels, start, width = [], 0, self.base
        while width:
            levels.append(range(start, start + width))
            start, width = start + width, width // 2
        return tuple(levels)

    @classmethod
    def from_rows(cls, rows: Rows) -> Self:
        """The cell that the short form of published.py describes."""
        nodes, inject, (cell_from, cell_into) = rows
        words: Any = [{"combination": combination, "activation": activation} for combination, activation in nodes]
        own: Any = {"combination": inject[0], "activation": inject[1]}
        return cls(nodes=words, inject=own, cell_from=cell_from, cell_into=cell_into)
