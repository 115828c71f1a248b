"""A recurrent layer of tree cells: one step as the paper writes it, and the fast scan over a window."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from nas_cluster.spaces.recurrent_tree.layout import layout_of
from nas_cluster.spaces.recurrent_tree.scan import scan
from nas_cluster.spaces.recurrent_tree.space import TreeArchitecture

__all__ = ["TreeLayer"]

_COMBINATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "elem_mult": torch.mul,
    "max": torch.maximum,
}

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "relu": torch.relu,
    "sin": torch.sin,
}


class TreeLayer(nn.Module):
    """One layer. Its state is (h, c), each (B, H).

    Parameters: `input_weight` (I, b·H) and `hidden_weight` (H, b·H), 8D(I+D) of them in base 8; the columns of the b
    leaves stand side by side in the order that suits the scan, `leaf_weights` says where.
    """

    def __init__(self, architecture: TreeArchitecture, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.architecture = architecture
        self.hidden_size = hidden_size
        self._layout = layout_of(architecture)
        columns = architecture.base * hidden_size
        self.input_weight = nn.Parameter(torch.empty(input_size, columns))
        self.hidden_weight = nn.Parameter(torch.empty(hidden_size, columns))
        for weight in self.parameters():
            nn.init.uniform_(weight, -(hidden_size**-0.5), hidden_size**-0.5)

    def initial_state(self, batch: int) -> tuple[Tensor, Tensor]:
        """Zeros."""
        zeros = self.hidden_weight.new_zeros(2, batch, self.hidden_size)
        return zeros[0], zeros[1]

    def leaf_weights(self, leaf: int) -> tuple[Tensor, Tensor]:
        """The two matrices of a leaf (I, H), (H, H), as views."""
        start = self._layout.leaves.index(leaf) * self.hidden_size
        stop = start + self.hidden_size
        return self.input_weight[:, start:stop], self.hidden_weight[:, start:stop]

    def forward(
        self, x_TBI: Tensor, state: tuple[Tensor, Tensor], mask_BH: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Hidden states (T, B, H) and the state after the last. `mask_BH` multiplies the h_{t-1} that is read."""
        h_BH, c_BH = state
        h_TBH, c_BH = scan(self._layout, x_TBI, h_BH, c_BH, self.input_weight, self.hidden_weight, mask_BH)
        return h_TBH, (h_TBH[-1], c_BH)

    def step(self, x_BI: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """One step node by node, as section 3.4 describes it: the definition that `forward` is tested against."""
        cell = self.architecture
        h_BH, c_BH = state
        values: list[Tensor] = []
        for number, node in enumerate(cell.nodes):
            if number < cell.base:
                input_weight, hidden_weight = self.leaf_weights(number)
                left, right = x_BI @ input_weight, h_BH @ hidden_weight
            else:
                left, right = (values[child] for child in cell.children(number))
            pre = _COMBINATIONS[node.combination](left, right)
            if number == cell.cell_from:
                next_c = pre
            value = _activate(node.activation, pre)
            if number == cell.cell_into:
                value = _activate(cell.inject.activation, _COMBINATIONS[cell.inject.combination](value, c_BH))
            values.append(value)
        return values[-1], next_c


def _activate(activation: str, value: Tensor) -> Tensor:
    return value if activation == "identity" else _ACTIVATIONS[activation](value)
