"""The network of all children of this space: a matrix for every ordered pair of nodes, of which a tree's are used."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from nas_cluster.core.task import LanguageTask
from nas_cluster.nn.language_model import State
from nas_cluster.nn.language_options import LanguageModelOptions
from nas_cluster.nn.shared_weights import tensors_by_name
from nas_cluster.spaces.enas_recurrent.architecture import Activation, RecurrentArchitecture, edge_name
from nas_cluster.spaces.enas_recurrent.child import DagModel, sized

__all__ = ["SharedRecurrent"]


class SharedRecurrent(DagModel):
    """It maps tokens, a state and an architecture to features and the next state; all children have these embeddings.

    136 D^2 + V D parameters for 12 nodes, of which a child has 26 D^2 + V D (preset paper, without batch norm).
    """

    def __init__(
        self,
        nodes: int,
        activations: Sequence[Activation],
        options: LanguageModelOptions,
        task: LanguageTask,
        *,
        per_activation: bool,
        norm: bool,
    ) -> None:
        names = {
            edge_name(node, previous, activation, per_activation=per_activation): None
            for node in range(nodes)
            for previous in range(node)
            for activation in activations
        }
        super().__init__(names, sized(options, nodes, norm, task), task, per_activation, norm)
        self._per_activation = per_activation

    def forward(  # type: ignore[override]
        self, tokens_TB: Tensor, state: State, architecture: RecurrentArchitecture
    ) -> tuple[Tensor, State]:
        """The features (T, B, E) that this architecture gives, and the state after the last token."""
        self.choose(architecture)
        return super().forward(tokens_TB, state)

    def tensors_of(self, architecture: RecurrentArchitecture) -> dict[str, Tensor]:
        """The child's parameters by name, by reference."""
        used = set(architecture.edges(per_activation=self._per_activation))
        return tensors_by_name(self, lambda name: name[2:3] != ["edges"] or name[3] in used)
