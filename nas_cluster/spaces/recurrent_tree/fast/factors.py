"""By which factor the gradient at the top of a cell reaches every leaf, at all steps of a window at once.

Two gradients enter a step: dh_t at the root, and dc_t at the node that writes c_t. At that node they meet: what goes on
below it is dc_t plus dh_t times the factor from the root to it, and factors start anew there. So every leaf, and the
place where c_{t-1} enters, has one factor and one of two carries. Shapes as in scan.py; P leaves.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nas_cluster.spaces.recurrent_tree.fast.layout import MEMORY, Layout, Run

__all__ = ["Factors"]

_aten = torch.ops.aten


class Factors:
    """The factors of a window. `descend` turns those of the leaves, in place, into the gradients of their products with
    h and x.

    In Figure 5's cell leaf 1 writes c_t, so its factor begins there; that of leaf 0 comes down from the root:

        >>> layout = layout_of(TreeArchitecture.from_rows(FIGURE_5))
        >>> factors = Factors(layout, values=lambda run: torch.full((1, 1, 1), 0.5))
        >>> factors.leaf_TBL.tolist()  # 0.5 (1 - 0.5) 0.5 (1 - 0.5²), and 0.5 for the product with x
        [[[0.09375, 0.5]]]
    """

    leaf_TBL: Tensor
    """They belong to the products with h, and to those with x where the leaf adds."""
    input_TBM: Tensor
    """They belong to the products with x of the leaves that do not add."""

    def __init__(self, layout: Layout, values: Callable[[Run], Tensor]) -> None:
        """`values` gives what a run of one slot held in the forward pass (T, B, H), c_{t-1} included."""
        self._layout = layout
        self._architecture = layout.architecture
        self._values = values
        self._below_written = [False] * len(layout.leaves)
        self._read_below_written = False
        like_TBH = values(layout.value(self._architecture.root))
        steps, batch, units = like_TBH.shape
        self._leaf_TBPH = like_TBH.new_empty(steps, batch, len(layout.leaves), units)
        self._input_TBPH = like_TBH.new_empty(steps, batch, len(layout.leaves) - layout.added, units)
        self.leaf_TBL, self.input_TBM = self._leaf_TBPH.flatten(2), self._input_TBPH.flatten(2)
        self._written_TBH, self._read_TBH = torch.empty_like(like_TBH), torch.empty_like(like_TBH)
        self._one_TBH = like_TBH.new_ones(()).expand_as(like_TBH)
        self._visit(self._architecture.root, self._one_TBH, below=False)

    def _visit(self, node: int, factor: Tensor, *, below: bool) -> None:
        """`factor` belongs to the value that the node's reader gets, after the inject."""
        layout, cell = self._layout, self._architecture
        if node == cell.cell_into:
            inject = cell.inject
            factor = self._before(inject.activation, factor, layout.inject_pre, layout.inject_out)
            self._part(inject.combination, factor, MEMORY, layout.out[node], into=self._read_TBH)
            self._read_below_written = below
            factor = self._part(inject.combination, factor, layout.out[node], MEMORY)
        combination, activation = cell.nodes[node].combination, cell.nodes[node].activation
        position = layout.leaves.index(node) if node < cell.base else None
        adds = position is not None and position < layout.added
        into = self._leaf_TBPH[:, :, position] if adds else None
        if node == cell.cell_from:
            self._before(activation, factor, layout.pre[node], layout.out[node], self._written_TBH)
            factor, below = self._one_TBH if into is None else into.fill_(1), True
        else:
            factor = self._before(activation, factor, layout.pre[node], layout.out[node], into)
        if position is None:
            left, right = cell.children(node)
            for child, other in ((left, right), (right, left)):
                part = self._part(combination, factor, layout.value(child), layout.value(other))
                self._visit(child, part, below=below)
            return
        self._below_written[position] = below
        if not adds:
            h_part, x_part = Run("leaf", position), Run("input", position - layout.added)
            self._part(combination, factor, h_part, x_part, into=self._leaf_TBPH[:, :, position])
            self._part(combination, factor, x_part, h_part, into=self._input_TBPH[:, :, x_part.start])

    def _before(self, activation: str, factor: Tensor, pre: Run, out: Run, into: Tensor | None = None) -> Tensor:
        """The factor before an activation, which is the one after it times the slope."""
        if activation == "identity":
            return factor if into is None else into.copy_(factor)
        into = torch.empty_like(self._written_TBH) if into is None else into
        if activation == "tanh":
            _aten.tanh_backward.grad_input(factor, self._values(out), grad_input=into)
        elif activation == "sigmoid":
            _aten.sigmoid_backward.grad_input(factor, self._values(out), grad_input=into)
        elif activation == "relu":
            _aten.threshold_backward.grad_input(factor, self._values(out), 0, grad_input=into)
        else:
            torch.mul(factor, self._values(pre).cos(), out=into)
        return into

    def _part(self, combination: str, factor: Tensor, mine: Run, other: Run, into: Tensor | None = None) -> Tensor:
        """The factor of `mine`, one of two values that are combined. Of equal values each gets half of a maximum's
        gradient, as in torch."""
        if combination == "elem_mult":
            return torch.mul(factor, self._values(other), out=into)
        if combination == "max":
            difference = self._values(mine) - self._values(other)
            return torch.mul(factor, torch.heaviside(difference, difference.new_full((), 0.5)), out=into)
        return factor if into is None else into.copy_(factor)

    def descend(
        self, dh_TBH: Tensor, dc_BH: Tensor | None, weight_HL: Tensor, mask_BH: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The gradient goes through all steps from the last to the first; weight_HL: the hidden weights.

        Returns the gradients of the first h and c (B, H).
        """
        weight_LH = weight_HL.t()
        dh_BH = torch.empty_like(dh_TBH[0])
        top_TBH, low_TBH = torch.empty_like(dh_TBH), torch.empty_like(dh_TBH)  # the two carries
        tops, lows = top_TBH.unbind(0), low_TBH.unbind(0)
        runs = [
            (self._leaf_TBPH[:, :, start:stop].unbind(0), (low_TBH if below else top_TBH).unsqueeze(2).unbind(0))
            for start, stop, below in self._runs()
        ]
        leaves, written, dh = self.leaf_TBL.unbind(0), self._written_TBH.unbind(0), dh_TBH.unbind(0)
        read, read_carries = self._read_TBH.unbind(0), lows if self._read_below_written else tops
        for t in reversed(range(len(dh))):
            if t + 1 == len(dh):
                tops[t].copy_(dh[t])
            elif mask_BH is None:
                torch.addmm(dh[t], leaves[t + 1], weight_LH, out=tops[t])
            else:
                torch.mm(leaves[t + 1], weight_LH, out=dh_BH)
                torch.addcmul(dh[t], dh_BH, mask_BH, out=tops[t])
            if dc_BH is None:
                torch.mul(tops[t], written[t], out=lows[t])
            else:
                torch.addcmul(dc_BH, tops[t], written[t], out=lows[t])
            for run, carries in runs:
                run[t].mul_(carries[t])
            dc_BH = read[t].mul_(read_carries[t])
        for position in range(self._layout.added, len(self._below_written)):
            carry_TBH = low_TBH if self._below_written[position] else top_TBH
            self._input_TBPH[:, :, position - self._layout.added].mul_(carry_TBH)
        torch.mm(leaves[0], weight_LH, out=dh_BH)
        assert dc_BH is not None
        return (dh_BH if mask_BH is None else dh_BH * mask_BH), dc_BH

    def _runs(self) -> list[tuple[int, int, bool]]:
        """Neighbouring leaves that have the same carry: first position, one after the last, whether it is the lower
        one."""
        runs: list[tuple[int, int, bool]] = []
        for position, below in enumerate(self._below_written):
            if runs and runs[-1][2] == below:
                runs[-1] = (runs[-1][0], position + 1, below)
            else:
                runs.append((position, position + 1, below))
        return runs
