"""One step of a level of the tree, up and down. Shapes, and what is computed: scan.py.

The memory of a window is gates, activations and values (3, S, T, B, D), first as products, then in place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from nas_cluster.spaces.enas_recurrent.architecture import Activation
from nas_cluster.spaces.enas_recurrent.fast.plan import Level

__all__ = ["Climb", "Descend"]

_aten = torch.ops.aten


class Climb:
    """It computes the values of a level, step by step, from those that its families read: `reads` (slots, T, B, D).

    weights: those of the level's slots (D, G). has_part_of_x: the products are added to what the memory holds.
    """

    def __init__(
        self,
        level: Level,
        weights: Sequence[Tensor],
        reads: Tensor,
        memory: Tensor,
        *,
        has_part_of_x: bool = False,
    ) -> None:
        gates, actives, values = memory.unbind(0)
        self._adds = has_part_of_x
        self._gates = gates[level.start : level.stop].unbind(1)
        self._runs = [(run.activation, actives[run.start : run.stop].unbind(1)) for run in level.runs]
        self._families = [
            (
                reads[family.parent, None].unbind(1),
                *(part[family.start : family.stop].unbind(1) for part in (actives, gates, values)),
            )
            for family in level.families
        ]
        self._products = [
            (reads[parent].unbind(0), half, memory[which, slot].unbind(0))
            for parent, slot, which, half in _halves(level, weights)
        ]

    def __call__(self, t: int) -> None:
        """Step t is computed; the levels above have been there."""
        for read, weight, product in self._products:
            if self._adds:
                product[t].addmm_(read[t], weight)
            else:
                torch.mm(read[t], weight, out=product[t])
        self._gates[t].sigmoid_()
        for activation, actives in self._runs:
            _activate(activation, actives[t])
        for reads, actives, gates, values in self._families:
            torch.lerp(reads[t], actives[t], gates[t], out=values[t])


class Descend:
    """It goes back through a level, step by step: from the gradients of its values, in `grads` (S, B, D), to those of
    its products, which take the place of its gates and activations, and of what its families read, which are added to
    `into` (slots, B, D)."""

    def __init__(
        self,
        level: Level,
        weights: Sequence[Tensor],
        reads: Tensor,
        memory: Tensor,
        grads: Tensor,
        into: Tensor,
    ) -> None:
        gates, actives, _ = memory.unbind(0)
        here = slice(level.start, level.stop)
        self._gates, self._grads = gates[here].unbind(1), grads[here]
        self._kept, self._slope = torch.empty_like(self._grads), torch.empty_like(self._grads)
        self._one = grads.new_ones(())
        self._runs = [
            (run.activation, grads[run.start : run.stop], actives[run.start : run.stop].unbind(1)) for run in level.runs
        ]
        self._families = []
        for family in level.families:
            own = slice(family.start - level.start, family.stop - level.start)
            self._families.append(
                (
                    reads[family.parent, None].unbind(1),
                    actives[family.start : family.stop].unbind(1),
                    *(self._slope[own], self._kept[own], self._grads[own], into[family.parent]),
                )
            )
        self._products = [
            (memory[which, slot].unbind(0), half.t(), into[parent])
            for parent, slot, which, half in _halves(level, weights)
        ]

    def __call__(self, t: int) -> None:
        """Step t is gone back through; the levels below have been there."""
        gates, grads, kept, slope = self._gates[t], self._grads, self._kept, self._slope
        torch.sub(self._one, gates, out=kept)
        for reads, actives, own_slope, own_kept, own_grads, into in self._families:
            torch.sub(actives[t], reads[t], out=own_slope)
            if len(own_grads) == 1:
                into.addcmul_(own_grads[0], own_kept[0])
            else:
                into.add_((own_grads * own_kept).sum(0))
        grads.mul_(gates)
        torch.mul(slope.mul_(grads), kept, out=gates)
        for activation, run_grads, run_actives in self._runs:
            _before(activation, run_grads, run_actives[t])
        for product, weight, into in self._products:
            into.addmm_(product[t], weight)


def _halves(level: Level, weights: Sequence[Tensor]) -> Iterator[tuple[int, int, int, Tensor]]:
    """Every product of a level is (parent, slot, 0 for the gate and 1 for the activation, weight (D, D))."""
    for (parent, slot), weight in zip(level.edges, weights, strict=True):
        for which, half in enumerate(weight.chunk(2, 1)):
            yield parent, slot, which, half


def _activate(activation: Activation, x: Tensor) -> None:
    if activation == "tanh" and x.is_cpu:  # 2 sigmoid(2x) - 1, twice as fast as torch's tanh
        x.mul_(2).sigmoid_().mul_(2).sub_(1)
    elif activation == "tanh":
        x.tanh_()
    elif activation == "relu":
        x.clamp_min_(0)
    elif activation == "sigmoid":
        x.sigmoid_()


def _before(activation: Activation, grad: Tensor, active: Tensor) -> None:
    """The gradient before an activation takes the place of its value."""
    if activation == "tanh":
        _aten.tanh_backward.grad_input(grad, active, grad_input=active)
    elif activation == "sigmoid":
        _aten.sigmoid_backward.grad_input(grad, active, grad_input=active)
    elif activation == "relu":
        _aten.threshold_backward.grad_input(grad, active, 0, grad_input=active)
    else:
        active.copy_(grad)
