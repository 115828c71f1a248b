"""A child of this space: the language model with a tree cell in every layer. `TreeLayer.cell` is the definition.

Shapes: T steps, B texts, I inputs, H units.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from nas_cluster.core.task import LanguageTask
from nas_cluster.nn.language_model import LanguageModel, unroll
from nas_cluster.nn.language_options import LanguageModelOptions
from nas_cluster.spaces.recurrent_tree.architecture import TreeArchitecture
from nas_cluster.spaces.recurrent_tree.fast import layout_of, scan

__all__ = ["TreeLayer", "tree_child"]

_COMBINE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "elem_mult": torch.mul,
    "max": torch.maximum,
}
_ACTIVATE: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "relu": torch.relu,
    "sin": torch.sin,
}

Memory = tuple[Tensor, Tensor]
"""The state of a layer: h and c, each (B, H)."""


def tree_child(architecture: TreeArchitecture, options: LanguageModelOptions, task: LanguageTask) -> nn.Module:
    """The child maps tokens (T, B) to features (T, B, E); its state is (h, c) of every layer."""
    return LanguageModel(options, task, partial(TreeLayer, architecture))


class TreeLayer(nn.Module):
    """One layer. Its parameters are `input_weight` (I, b·H) and `hidden_weight` (H, b·H), 8D(I+D) of them in base 8;
    the columns of the b leaves stand side by side in the layout's order, `leaf_weights` says where."""

    fast = True
    """Whether a window goes through `scan` of fast/, which computes what `cell` does step by step."""

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

    def cell(self, x_BI: Tensor, state: Memory) -> Memory:
        """One step, node by node, takes (h_{t-1}, c_{t-1}) to (h_t, c_t) as section 3.4 of the paper writes it."""
        tree, (h_BH, c_BH) = self.architecture, state
        values: list[Tensor] = []
        for number, node in enumerate(tree.nodes):
            if number < tree.base:
                w_IH, u_HH = self.leaf_weights(number)
                left, right = x_BI @ w_IH, h_BH @ u_HH
            else:
                left, right = (values[child] for child in tree.children(number))
            combined = _COMBINE[node.combination](left, right)
            if number == tree.cell_from:
                next_c_BH = combined
            value = _ACTIVATE[node.activation](combined)
            if number == tree.cell_into:
                value = _ACTIVATE[tree.inject.activation](_COMBINE[tree.inject.combination](value, c_BH))
            values.append(value)
        return values[tree.root], next_c_BH

    def forward(self, x_TBI: Tensor, state: Memory, mask_BH: Tensor | None = None) -> tuple[Tensor, Memory]:
        """The layer gives its hidden states (T, B, H) and the state after the last. `mask_BH` multiplies the h_{t-1}
        that every step reads."""
        if not self.fast:
            return unroll(self.cell, x_TBI, state, mask_BH)
        h_TBH, c_BH = scan(self._layout, x_TBI, *state, self.input_weight, self.hidden_weight, mask_BH)
        return h_TBH, (h_TBH[-1], c_BH)

    def initial_state(self, batch: int) -> Memory:
        """A text begins with zeros."""
        zeros = self.hidden_weight.new_zeros(2, batch, self.hidden_size)
        return zeros[0], zeros[1]

    def leaf_weights(self, leaf: int) -> tuple[Tensor, Tensor]:
        """The matrices W (I, H) and U (H, H) of a leaf, as views."""
        start = self._layout.leaves.index(leaf) * self.hidden_size
        stop = start + self.hidden_size
        return self.input_weight[:, start:stop], self.hidden_weight[:, start:stop]
