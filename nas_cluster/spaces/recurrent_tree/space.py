"""The recurrent-cell space of Zoph & Le 2017 (sections 3.4, 4.2): a binary tree over x_t and h_{t-1}.

Nodes of base b: leaves 0 to b-1, internal nodes b to 2b-2; node b+i has the children 2i and 2i+1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import AfterValidator, Field, model_validator

from nas_cluster.core.component import Options
from nas_cluster.core.decisions import Decision, DecisionSpec, Tokens
from nas_cluster.core.drawing import Drawing
from nas_cluster.core.task import LanguageTask, Task
from nas_cluster.nn.language_options import LanguageModelOptions
from nas_cluster.spaces.base import Architecture, SearchSpace
from nas_cluster.spaces.recurrent_tree.published import FIGURE_5, LSTM, NASCELL, Rows

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Activation", "Combination", "RecurrentTree", "TreeArchitecture", "TreeNode"]

Combination = Literal["add", "elem_mult", "max"]
Activation = Literal["identity", "tanh", "sigmoid", "relu", "sin"]

_SHORT = {"add": "+", "elem_mult": "\N{MULTIPLICATION SIGN}", "max": "max ", "identity": "id", "sigmoid": "sig"}

_Word = TypeVar("_Word", bound=str)


def _different(words: tuple[_Word, ...]) -> tuple[_Word, ...]:
    if len(set(words)) != len(words):
        raise ValueError("the same word twice")
    return words


def _power_of_two(base: int) -> int:
    if base < 2 or base & (base - 1):
        raise ValueError("the number of leaves must be a power of two, from 2")
    return base


class TreeNode(Options):
    """Combine two values, then activate."""

    combination: Combination
    activation: Activation

    def __str__(self) -> str:
        """`+sig`: the sigmoid of a sum."""
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
        for name in ("cell_from", "cell_into"):
            if getattr(self, name) >= len(self.nodes):
                raise ValueError(f"{name}: {getattr(self, name)} is not a node, the last is {len(self.nodes) - 1}")
        return self

    @property
    def base(self) -> int:
        """Number of leaves."""
        return (len(self.nodes) + 1) // 2

    @property
    def root(self) -> int:
        """The last node."""
        return len(self.nodes) - 1

    def children(self, node: int) -> tuple[int, int]:
        """Left and right child of an internal node."""
        first = 2 * (node - self.base)
        return first, first + 1

    @property
    def levels(self) -> tuple[range, ...]:
        """The nodes of each level: the leaves first, the root last."""
        levels, start, width = [], 0, self.base
        while width:
            levels.append(range(start, start + width))
            start, width = start + width, width // 2
        return tuple(levels)

    @classmethod
    def from_rows(cls, rows: Rows) -> Self:
        """From the short form of published.py."""
        nodes, inject, (cell_from, cell_into) = rows
        words: Any = [{"combination": combination, "activation": activation} for combination, activation in nodes]
        own: Any = {"combination": inject[0], "activation": inject[1]}
        return cls(nodes=words, inject=own, cell_from=cell_from, cell_into=cell_into)


class RecurrentTree(SearchSpace[TreeArchitecture]):
    """Per node a combination and an activation, the same for the cell inject, then the two cell indices."""

    architecture_type: ClassVar[type[Architecture]] = TreeArchitecture
    understands: ClassVar[tuple[type[Task], ...]] = (LanguageTask,)

    base: Annotated[int, AfterValidator(_power_of_two)] = 8
    """Number of leaves: 2, 4, 8, ..."""
    combinations: Annotated[tuple[Combination, ...], Field(min_length=1), AfterValidator(_different)] = (
        "add",
        "elem_mult",
    )
    """`max` is the extension of the paper's control experiment."""
    activations: Annotated[tuple[Activation, ...], Field(min_length=1), AfterValidator(_different)] = (
        "identity",
        "tanh",
        "sigmoid",
        "relu",
    )
    """`sin` is the extension of the paper's control experiment."""
    child: LanguageModelOptions = LanguageModelOptions()

    def decisions(self) -> DecisionSpec:
        """Nodes in index order, the inject, the index for c_t, the index for c_{t-1}: 2(2b-1) + 4 decisions."""
        nodes = tuple(f"node_{node}" for node in range(2 * self.base - 1))
        decisions = [
            Decision(f"{name}.{what}", "choice", len(words), what, labels=words)
            for name in (*nodes, "inject")
            for what, words in (("combination", self.combinations), ("activation", self.activations))
        ]
        indices = [Decision(name, "choice", len(nodes), name, labels=nodes) for name in ("cell_from", "cell_into")]
        return DecisionSpec([*decisions, *indices])

    def decode(self, tokens: Sequence[int]) -> TreeArchitecture:
        """Tokens (T) to an architecture."""
        *pairs, cell_from, cell_into = self.decisions().check(tokens)
        nodes = [
            TreeNode(combination=self.combinations[combination], activation=self.activations[activation])
            for combination, activation in zip(pairs[::2], pairs[1::2], strict=True)
        ]
        return TreeArchitecture(nodes=tuple(nodes[:-1]), inject=nodes[-1], cell_from=cell_from, cell_into=cell_into)

    def encode(self, architecture: TreeArchitecture) -> Tokens:
        """Inverse of `decode`. Raises ValueError: the base, or the node and the word that this space does not have."""
        if architecture.base != self.base:
            raise ValueError(f"an architecture of base {architecture.base}, the space has base {self.base}")
        tokens = []
        names = [f"node {node}" for node in range(len(architecture.nodes))]
        for name, node in zip([*names, "inject"], [*architecture.nodes, architecture.inject], strict=True):
            for what, words in (("combination", self.combinations), ("activation", self.activations)):
                word: Any = getattr(node, what)
                if word not in words:
                    raise ValueError(f"{name}: {what} {word!r} is not among {list(words)}")
                tokens.append(words.index(word))
        return (*tokens, architecture.cell_from, architecture.cell_into)

    def canonical(self, architecture: TreeArchitecture) -> TreeArchitecture:
        """The representative of the cells that compute the same functions of x, h and c (canonical.py)."""
        from nas_cluster.spaces.recurrent_tree.canonical import canonical

        return canonical(architecture)

    def check(self, task: LanguageTask) -> None:
        """Raise ConfigError when `child.parameters` is less than the smallest child has."""
        if self.child.parameters is not None:
            import torch

            with torch.device("meta"):
                self.build_child(self.decode([0] * len(self.decisions())), task)

    def build_child(self, architecture: TreeArchitecture, task: LanguageTask) -> nn.Module:
        """The child network (child.py), of the architecture's own base."""
        from nas_cluster.spaces.recurrent_tree.child import tree_child

        return tree_child(architecture, self.child, task)

    def summary(self, architecture: TreeArchitecture) -> str:
        """`+tanh +relu | +sig · c +relu into 0, from 1`: level by level, then the cell state."""
        levels = " | ".join(" ".join(str(architecture.nodes[n]) for n in level) for level in architecture.levels)
        return f"{levels} · c {architecture.inject} into {architecture.cell_into}, from {architecture.cell_from}"

    def draw(self, architecture: TreeArchitecture) -> list[Drawing]:
        """The tree from the leaves down to h_t; where c_{t-1} enters and where c_t leaves (drawing.py)."""
        from nas_cluster.spaces.recurrent_tree.drawing import draw_tree

        return [draw_tree(architecture)]

    @classmethod
    def named(cls) -> Mapping[str, TreeArchitecture]:
        """`nascell` (base 8), the paper's cell; `figure5` (base 2), its example; `lstm` (base 8)."""
        rows = {"nascell": NASCELL, "figure5": FIGURE_5, "lstm": LSTM}
        return {name: TreeArchitecture.from_rows(row) for name, row in rows.items()}
