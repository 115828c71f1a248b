"""The recurrent-cell space of Zoph & Le 2017 (sections 3.4, 4.2): what a tree cell's nodes compute is decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, TypeVar

from pydantic import AfterValidator, Field

from nas_cluster.core.decisions import Decision, DecisionSpec, Tokens
from nas_cluster.core.drawing import Drawing
from nas_cluster.core.task import LanguageTask, Task
from nas_cluster.nn.language_options import LanguageModelOptions
from nas_cluster.spaces._words import named_once
from nas_cluster.spaces.base import Architecture, SearchSpace
from nas_cluster.spaces.recurrent_tree.architecture import Activation, Combination, TreeArchitecture, TreeNode
from nas_cluster.spaces.recurrent_tree.published import FIGURE_5, LSTM, NASCELL

if TYPE_CHECKING:
    from torch import nn

__all__ = ["RecurrentTree"]

_Word = TypeVar("_Word", bound=str)


def _power_of_two(base: int) -> int:
    if base < 2 or base & (base - 1):
        raise ValueError("the number of leaves must be a power of two, from 2")
    return base


class RecurrentTree(SearchSpace[TreeArchitecture]):
    """A cell is decided node by node: a combination and an activation each, the same for the cell inject, then the two
    cell indices."""

    architecture_type: ClassVar[type[Architecture]] = TreeArchitecture
    understands: ClassVar[tuple[type[Task], ...]] = (LanguageTask,)

    base: Annotated[int, AfterValidator(_power_of_two)] = 8
    """The number of leaves: 2, 4, 8, ..."""
    combinations: Annotated[tuple[Combination, ...], Field(min_length=1), AfterValidator(named_once)] = (
        "add",
        "elem_mult",
    )
    """`max` is the extension of the paper's control experiment."""
    activations: Annotated[tuple[Activation, ...], Field(min_length=1), AfterValidator(named_once)] = (
        "identity",
        "tanh",
        "sigmoid",
        "relu",
    )
    """`sin` is the extension of the paper's control experiment."""
    child: LanguageModelOptions = LanguageModelOptions()

    def decisions(self) -> DecisionSpec:
        """Nodes come in index order, then the inject, the indices for c_t and c_{t-1}: 2(2b-1) + 4 decisions."""
        nodes = tuple(f"node_{node}" for node in range(2 * self.base - 1))
        decisions = [
            Decision(f"{name}.{what}", "choice", len(words), what, labels=words)
            for name in (*nodes, "inject")
            for what, words in (("combination", self.combinations), ("activation", self.activations))
        ]
        indices = [Decision(name, "choice", len(nodes), name, labels=nodes) for name in ("cell_from", "cell_into")]
        return DecisionSpec([*decisions, *indices])

    def decode(self, tokens: Sequence[int]) -> TreeArchitecture:
        """The cell that tokens (T) stand for."""
        *pairs, cell_from, cell_into = self.decisions().check(tokens)
        nodes = [
            TreeNode(combination=self.combinations[combination], activation=self.activations[activation])
            for combination, activation in zip(pairs[::2], pairs[1::2], strict=True)
        ]
        return TreeArchitecture(nodes=tuple(nodes[:-1]), inject=nodes[-1], cell_from=cell_from, cell_into=cell_into)

    def encode(self, architecture: TreeArchitecture) -> Tokens:
        """The tokens that `decode` turns into this cell. Raises ValueError, which names the base, or the node and the
        word, that this space does not have."""
        if architecture.base != self.base:
            raise ValueError(f"an architecture of base {architecture.base}, the space has base {self.base}")
        tokens: list[int] = []
        names = [f"node {node}" for node in range(len(architecture.nodes))]
        for name, node in zip([*names, "inject"], [*architecture.nodes, architecture.inject], strict=True):
            tokens.append(_index(self.combinations, node.combination, f"{name}: combination"))
            tokens.append(_index(self.activations, node.activation, f"{name}: activation"))
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
        """The cell level by level, then what becomes of its state: `+tanh +relu | +sig · c +relu into 0, from 1`."""
        levels = " | ".join(" ".join(str(architecture.nodes[n]) for n in level) for level in architecture.levels)
        return f"{levels} · c {architecture.inject} into {architecture.cell_into}, from {architecture.cell_from}"

    def draw(self, architecture: TreeArchitecture) -> list[Drawing]:
        """The picture goes from the leaves down to h_t, and shows where c_{t-1} enters and c_t leaves (pictures.py)."""
        from nas_cluster.spaces.recurrent_tree.pictures import draw_tree

        return [draw_tree(architecture)]

    @classmethod
    def named(cls) -> Mapping[str, TreeArchitecture]:
        """Known are `nascell` (base 8), the paper's cell, `figure5` (base 2), its example, and `lstm` (base 8)."""
        rows = {"nascell": NASCELL, "figure5": FIGURE_5, "lstm": LSTM}
        return {name: TreeArchitecture.from_rows(row) for name, row in rows.items()}


def _index(words: Sequence[str], word: str, what: str) -> int:
    if word not in words:
        raise ValueError(f"{what} {word!r} is not among {list(words)}")
    return words.index(word)
