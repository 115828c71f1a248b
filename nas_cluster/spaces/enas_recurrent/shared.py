"""The network of all children of this space: a matrix for every ordered pair of nodes, of which a tree's are used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from nas_cluster.core.task import LanguageTask
from nas_cluster.nn.language_model import State
from nas_cluster.nn.shared_weights import tensors_by_name
from nas_cluster.spaces.enas_recurrent.architecture import RecurrentArchitecture
from nas_cluster.spaces.enas_recurrent.cell import edge_name, edges_of
from nas_cluster.spaces.enas_recurrent.child import CellModel, language_options

if TYPE_CHECKING:
    from nas_cluster.spaces.enas_recurrent.space import ENASRecurrent

__all__ = ["SharedRecurrent"]


class SharedRecurrent(CellModel):
    """Tokens, a state and an architecture to features and the next state; all children have these embeddings.

    136 D^2 + V D parameters for 12 nodes, of which a child has 26 D^2 + V D (preset paper, without batch norm).
    """

    def __init__(self, task: LanguageTask, space: ENASRecurrent) -> None:
        per_activation = space.per_activation
        names = {
            edge_name(node, previous, activation, per_activation=per_activation): None
            for node in range(space.nodes)
            for previous in range(node)
            for activation in space.activations
        }
        super().__init__(names, space, task, language_options(space, task))
        self._per_activation = per_activation

    def forward(  # type: ignore[override]
        self, tokens_TB: Tensor, state: State, architecture: RecurrentArchitecture
    ) -> tuple[Tensor, State]:
        """Features (T, B, E) and the state after the last token."""
        self.choose(architecture)
        return super().forward(tokens_TB, state)

    def tensors_of(self, architecture: RecurrentArchitecture) -> dict[str, Tensor]:
        """The child's parameters by name, by reference."""
        used = set(edges_of(architecture, per_activation=self._per_activation))
        return tensors_by_name(self, lambda name: name[2:3] != ["edges"] or name[3] in used)
