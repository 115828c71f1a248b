"""A recurrent layer of DAG cells, of one architecture or of all: it has the matrices of the edges it is given."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from nas_cluster.spaces.enas_recurrent.architecture import Activation, RecurrentArchitecture
from nas_cluster.spaces.enas_recurrent.plan import plan_of
from nas_cluster.spaces.enas_recurrent.scan import EPSILON, Workspace, scan

__all__ = ["DagLayer", "edge_name", "edges_of"]

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "identity": lambda x: x,
    "sigmoid": torch.sigmoid,
}


def edge_name(node: int, previous: int, activation: Activation, *, per_activation: bool) -> str:
    """Of the matrices with which `node` reads `previous`; per_activation: and does so for this activation."""
    return f"{node}_{previous}" + (f"_{activation}" if per_activation else "")


def edges_of(architecture: RecurrentArchitecture, *, per_activation: bool) -> list[str]:
    """The edges of nodes 1, 2, ... of a cell."""
    return [
        edge_name(number, node.previous, node.activation, per_activation=per_activation)
        for number, node in enumerate(architecture.nodes)
        if node.previous is not None
    ]


class DagLayer(nn.Module):
    """One layer of I inputs and D units. Its state is h (B, D).

    Parameters: `input_weight` (I, 2D), `hidden_weight` (D, 2D), and (D, 2D) per edge: the gate's matrix, then the
    activation's, side by side. 26 D^2 for I = D and a cell of 12 nodes. norm: a batch norm of the mean of the loose
    ends, from the statistics of the batch.
    """

    def __init__(self, edges: Iterable[str], per_activation: bool, norm: bool, input_size: int, units: int) -> None:
        super().__init__()
        self._per_activation = per_activation
        self._workspace = Workspace()
        self.input_weight = nn.Parameter(torch.empty(input_size, 2 * units))
        self.hidden_weight = nn.Parameter(torch.empty(units, 2 * units))
        self.edges = nn.ParameterDict({name: nn.Parameter(torch.empty(units, 2 * units)) for name in edges})
        for weight in self.parameters():
            nn.init.uniform_(weight, -(units**-0.5), units**-0.5)
        self.norm = nn.BatchNorm1d(units, EPSILON, track_running_stats=False) if norm else None

    def choose(self, architecture: RecurrentArchitecture) -> None:
        """What the following calls compute."""
        self.architecture = architecture
        self._plan = plan_of(architecture)
        edges = edges_of(architecture, per_activation=self._per_activation)
        self._chosen = [edges[node - 1] for node in self._plan.order[1:]]

    def initial_state(self, batch: int) -> tuple[Tensor]:
        """Zeros."""
        return (self.hidden_weight.new_zeros(batch, len(self.hidden_weight)),)

    def forward(
        self, x_TBI: Tensor, state: tuple[Tensor], mask_BD: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor]]:
        """Hidden states (T, B, D) and the state after the last. `mask_BD` multiplies the h_{t-1} that is read."""
        norm = None if self.norm is None else (self.norm.weight, self.norm.bias)
        edges = [self.edges[name] for name in self._chosen]
        weights = self.input_weight, self.hidden_weight
        h_TBD = scan(self._workspace, self._plan, x_TBI, state[0], mask_BD, *weights, norm, edges)
        return h_TBD, (h_TBD[-1],)

    def step(self, x_BI: Tensor, h_BD: Tensor) -> Tensor:
        """One step node by node, as the paper has it: the definition that `forward` is tested against."""
        values: list[Tensor] = []
        for number, node in enumerate(self.architecture.nodes):
            if node.previous is None:
                read, products = h_BD, x_BI @ self.input_weight + h_BD @ self.hidden_weight
            else:
                name = edge_name(number, node.previous, node.activation, per_activation=self._per_activation)
                read = values[node.previous]
                products = read @ self.edges[name]
            gate, active = products.chunk(2, 1)
            gate, active = torch.sigmoid(gate), _ACTIVATIONS[node.activation](active)
            values.append(gate * active + (1 - gate) * read)
        mean_BD = torch.stack([values[n] for n in self.architecture.averaged]).mean(0)
        return mean_BD if self.norm is None else self.norm(mean_BD)
