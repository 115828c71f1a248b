"""A child of this space: the language model with a DAG cell in every layer. `DagLayer.cell` is the definition.

Shapes: T steps, B texts, I inputs, D units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor, nn

from nas_cluster.core.task import LanguageTask
from nas_cluster.nn.language_model import LanguageModel, choose_hidden_size, unroll
from nas_cluster.nn.language_options import LanguageModelOptions
from nas_cluster.spaces.enas_recurrent.architecture import RecurrentArchitecture
from nas_cluster.spaces.enas_recurrent.fast import Workspace, plan_of, scan

__all__ = ["DagLayer", "DagModel", "recurrent_child", "sized"]

_ACTIVATE: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "identity": lambda x: x,
    "sigmoid": torch.sigmoid,
}


class DagLayer(nn.Module):
    """One layer of I inputs and D units, of one architecture or of all: it has the matrices of the edges it is given.

    Its parameters are `input_weight` (I, 2D), `hidden_weight` (D, 2D), and (D, 2D) per edge: the gate's matrix, then
    the activation's, side by side. 26 D^2 for I = D and a cell of 12 nodes. per_activation: an edge has matrices of its
    own for each activation. norm: a batch norm of the mean takes its statistics from the batch.
    """

    fast = True
    """Whether a window goes through `scan` of fast/, which computes what `cell` does step by step."""

    def __init__(self, edges: Iterable[str], per_activation: bool, norm: bool, input_size: int, units: int) -> None:
        super().__init__()
        self._per_activation = per_activation
        self._workspace = Workspace()
        self.input_weight = nn.Parameter(torch.empty(input_size, 2 * units))
        self.hidden_weight = nn.Parameter(torch.empty(units, 2 * units))
        self.edges = nn.ParameterDict({name: nn.Parameter(torch.empty(units, 2 * units)) for name in edges})
        for weight in self.parameters():
            nn.init.uniform_(weight, -(units**-0.5), units**-0.5)
        self.norm = nn.BatchNorm1d(units, track_running_stats=False) if norm else None

    def choose(self, architecture: RecurrentArchitecture) -> None:
        """From now on the layer computes this cell."""
        self.architecture = architecture
        self._plan = plan_of(architecture)
        self._edges = architecture.edges(per_activation=self._per_activation)

    def cell(self, x_BI: Tensor, state: tuple[Tensor]) -> tuple[Tensor]:
        """One step, node by node, takes h_{t-1} to h_t as the paper writes it (section 2.1, appendix A): node l,
        which reads node j, is c f(h_j W^h) + (1 - c) h_j with the gate c = sigmoid(h_j W^c)."""
        (h_BD,) = state
        values: list[Tensor] = []
        for number, node in enumerate(self.architecture.nodes):
            if node.previous is None:
                read, products = h_BD, x_BI @ self.input_weight + h_BD @ self.hidden_weight
            else:
                read = values[node.previous]
                products = read @ self.edges[self._edges[number - 1]]
            gate, content = products.chunk(2, 1)
            c = torch.sigmoid(gate)
            values.append(c * _ACTIVATE[node.activation](content) + (1 - c) * read)
        mean_BD = torch.stack([values[n] for n in self.architecture.averaged]).mean(0)
        return (mean_BD if self.norm is None else self.norm(mean_BD),)

    def forward(
        self, x_TBI: Tensor, state: tuple[Tensor], mask_BD: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor]]:
        """The layer gives its hidden states (T, B, D) and the state after the last. `mask_BD` multiplies the h_{t-1}
        that every step reads."""
        if not self.fast:
            return unroll(self.cell, x_TBI, state, mask_BD)
        norm = None if self.norm is None else (self.norm.weight, self.norm.bias)
        edges = [self.edges[self._edges[node - 1]] for node in self._plan.order[1:]]
        weights = self.input_weight, self.hidden_weight
        h_TBD = scan(self._workspace, self._plan, x_TBI, state[0], mask_BD, *weights, norm, edges)
        return h_TBD, (h_TBD[-1],)

    def initial_state(self, batch: int) -> tuple[Tensor]:
        """A text begins with zeros."""
        return (self.hidden_weight.new_zeros(batch, len(self.hidden_weight)),)


class DagModel(LanguageModel):
    """A language model whose layers have the given edges. Batch norms start as they are, not uniform."""

    def __init__(
        self, edges: Iterable[str], options: LanguageModelOptions, task: LanguageTask, per_activation: bool, norm: bool
    ) -> None:
        super().__init__(options, task, partial(DagLayer, list(edges), per_activation, norm))
        for layer in self._layers():
            if layer.norm is not None:
                layer.norm.reset_parameters()

    def choose(self, architecture: RecurrentArchitecture) -> None:
        """From now on the model computes this cell."""
        for layer in self._layers():
            layer.choose(architecture)

    def _layers(self) -> list[DagLayer]:
        return list(self.layers)  # type: ignore[arg-type]


def recurrent_child(
    architecture: RecurrentArchitecture,
    options: LanguageModelOptions,
    task: LanguageTask,
    *,
    per_activation: bool,
    norm: bool,
) -> nn.Module:
    """The child maps tokens (T, B) to features (T, B, E); its state is h of every layer."""
    model = DagModel(architecture.edges(per_activation=per_activation), options, task, per_activation, norm)
    model.choose(architecture)
    return model


def sized(options: LanguageModelOptions, nodes: int, norm: bool, task: LanguageTask) -> LanguageModelOptions:
    """The options with a hidden size, which is the same for every cell of so many nodes: all have as many edges.

    Raises ConfigError when `child.parameters` is less than the smallest child has.
    """
    make_layer = partial(DagLayer, [str(node) for node in range(1, nodes)], False, norm)
    size = choose_hidden_size(options, task.vocabulary, make_layer)
    return options.model_copy(update={"hidden_size": size, "parameters": None})
