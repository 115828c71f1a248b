"""A child of this space: the language model with the cell in every layer."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from torch import nn

from nas_cluster.core.task import LanguageTask
from nas_cluster.nn.language_model import LanguageModel, choose_hidden_size
from nas_cluster.nn.language_options import LanguageModelOptions
from nas_cluster.spaces.enas_recurrent.architecture import RecurrentArchitecture
from nas_cluster.spaces.enas_recurrent.cell import DagLayer, edges_of

if TYPE_CHECKING:
    from nas_cluster.spaces.enas_recurrent.space import ENASRecurrent

__all__ = ["CellModel", "language_options", "recurrent_child"]


class CellModel(LanguageModel):
    """A language model whose layers have the given edges. Batch norms start as they are, not uniform."""

    def __init__(
        self, edges: Iterable[str], space: ENASRecurrent, task: LanguageTask, options: LanguageModelOptions
    ) -> None:
        super().__init__(options, task, partial(DagLayer, list(edges), space.per_activation, space.batch_norm))
        for layer in self.layers:
            if isinstance(layer, DagLayer) and layer.norm is not None:
                layer.norm.reset_parameters()

    def choose(self, architecture: RecurrentArchitecture) -> None:
        """What the following calls compute."""
        for layer in self.layers:
            assert isinstance(layer, DagLayer)
            layer.choose(architecture)


def language_options(space: ENASRecurrent, task: LanguageTask) -> LanguageModelOptions:
    """The options of the language model with a hidden size, which is the same for every child: all have as many edges.

    Raises ConfigError when `child.parameters` is less than the smallest child has.
    """
    options = space.child.language_model
    edges = edges_of(space.decode([0] * len(space.decisions())), per_activation=space.per_activation)
    make_layer = partial(DagLayer, edges, space.per_activation, space.batch_norm)
    size = choose_hidden_size(options, task.vocabulary, make_layer)
    return options.model_copy(update={"hidden_size": size, "parameters": None})


def recurrent_child(architecture: RecurrentArchitecture, space: ENASRecurrent, task: LanguageTask) -> nn.Module:
    """Tokens (T, B) to features (T, B, E), state h of every layer."""
    edges = edges_of(architecture, per_activation=space.per_activation)
    model = CellModel(edges, space, task, space.child.language_model)
    model.choose(architecture)
    return model
