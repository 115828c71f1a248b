"""The cell over all steps of a window, with its gradient by hand.

A node's highway: h_l = h_j + c (a - h_j) with the gate c = sigmoid(h_j W^c) and the activation a = f(h_j W^h). The first
node reads h_{t-1} as h_j, and its two products have a part of x_t, which is one matrix product for the whole window.

Forward: per step two products per node and a few elementwise operations per level of the tree (plan.py). Backward: per
step a few elementwise operations per level turn gates and activations, in place, into the gradients of their products,
and two products per node go on to what it read. The gradient of a weight is one product for the whole window, after the
loop. Only the weights of the cell's own edges are touched.

Shapes: T steps, B texts, I inputs, D units, S slots; G = 2D, the columns of W^c and W^h side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nas_cluster.spaces.enas_recurrent.architecture import Activation
from nas_cluster.spaces.enas_recurrent.plan import Level, Plan

__all__ = ["EPSILON", "Workspace", "scan"]

EPSILON = 1e-5
"""Of the batch norm."""

_aten = torch.ops.aten


class Workspace:
    """The memory of a window, which the next one uses again: on a CPU fresh memory costs as much as the elementwise
    operations do. On other devices torch's allocator does the same."""

    def __init__(self) -> None:
        self._free: Tensor | None = None

    def take(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Uninitialised memory."""
        free, self._free = self._free, None
        fits = free is not None and free.shape == shape and free.dtype == like.dtype and free.device == like.device
        return free if fits and free is not None else like.new_empty(shape)

    def give(self, memory: Tensor) -> None:
        """Nobody reads it any more."""
        if memory.is_cpu:
            self._free = memory


def scan(
    workspace: Workspace,
    plan: Plan,
    x_TBI: Tensor,
    h_BD: Tensor,
    mask_BD: Tensor | None,
    input_IG: Tensor,
    hidden_DG: Tensor,
    norm: tuple[Tensor, Tensor] | None,
    edges_DG: Sequence[Tensor],
) -> Tensor:
    """Hidden states (T, B, D). edges: the weights of slots 1, 2, ...; norm: scale and shift of a batch norm of the mean,
    or None. mask multiplies the hidden state that every step reads. The gradient is not differentiable itself."""
    scale_D, shift_D = norm if norm is not None else (None, None)
    result: Tensor = _Scan.apply(
        workspace, plan, x_TBI, h_BD, mask_BD, input_IG, hidden_DG, scale_D, shift_D, *edges_DG
    )
    return result


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        workspace: Workspace,
        plan: Plan,
        x_TBI: Tensor,
        h_BD: Tensor,
        mask_BD: Tensor | None,
        input_IG: Tensor,
        hidden_DG: Tensor,
        scale_D: Tensor | None,
        shift_D: Tensor | None,
        *edges_DG: Tensor,
    ) -> Tensor:
        (T, B), D, S = x_TBI.shape[:2], h_BD.shape[1], len(plan.order)
        memory_3STBD = workspace.take((3, S, T, B, D), x_TBI)
        gates_STBD, actives_STBD, values_STBD = memory_3STBD.unbind(0)
        read_TBD, mean_TBD = x_TBI.new_empty(T, B, D), x_TBI.new_empty(T, B, D)
        out_TBD = mean_TBD if scale_D is None else torch.empty_like(mean_TBD)
        x_NI = x_TBI.reshape(T * B, -1)
        for half_ID, products_STBD in zip(input_IG.chunk(2, 1), (gates_STBD, actives_STBD), strict=True):
            torch.mm(x_NI, half_ID, out=products_STBD[0].view(T * B, D))
        own = plan.first_level
        levels = [_Climb(own, (hidden_DG,), read_TBD[None], gates_STBD, actives_STBD, values_STBD, beta=1)]
        for level in plan.levels:
            weights = edges_DG[level.start - 1 : level.stop - 1]
            levels.append(_Climb(level, weights, values_STBD, gates_STBD, actives_STBD, values_STBD))
        averaged = [values_STBD[slots.start : slots.stop].unbind(1) for slots in plan.averaged]
        statistics: list[list[Tensor]] = []
        reads, means, outs = read_TBD.unbind(0), mean_TBD.unbind(0), out_TBD.unbind(0)
        for t in range(T):
            if mask_BD is None:
                reads[t].copy_(h_BD)
            else:
                torch.mul(h_BD, mask_BD, out=reads[t])
            for climb in levels:
                climb(t)
            first_BD, *others = [_summed(values[t]) for values in averaged]
            for other_BD in others:
                first_BD = first_BD + other_BD
            torch.mul(first_BD, 1 / plan.count, out=means[t])
            if scale_D is not None:
                normalised, *found = torch.native_batch_norm(means[t], scale_D, shift_D, None, None, True, 0.0, EPSILON)
                outs[t].copy_(normalised)
                statistics.append(found)
            h_BD = outs[t]
        if any(ctx.needs_input_grad):
            ctx.plan, ctx.statistics, ctx.workspace, ctx.memory = plan, statistics, workspace, memory_3STBD
            mean = None if scale_D is None else mean_TBD
            ctx.save_for_backward(x_TBI, mask_BD, input_IG, hidden_DG, scale_D, read_TBD, mean, *edges_DG)
        else:
            workspace.give(memory_3STBD)
        return out_TBD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout_TBD: Tensor) -> tuple[Tensor | None, ...]:
        plan: Plan = ctx.plan
        x_TBI, mask_BD, input_IG, hidden_DG, scale_D, read_TBD, mean_TBD, *edges_DG = ctx.saved_tensors
        memory_3STBD, ctx.memory = ctx.memory, None
        if memory_3STBD is None:
            raise RuntimeError("the gradient of a scan can be computed once: its values were overwritten by it")
        gates_STBD, actives_STBD, values_STBD = memory_3STBD.unbind(0)
        S, T, B, D = gates_STBD.shape
        shares_S11 = _shares(plan, dout_TBD)
        grads_SBD, dread_1BD = dout_TBD.new_empty(S, B, D), dout_TBD.new_empty(1, B, D)
        own = plan.first_level
        levels = [_Descend(own, (hidden_DG,), read_TBD[None], gates_STBD, actives_STBD, grads_SBD, dread_1BD)]
        for level in plan.levels:
            weights = edges_DG[level.start - 1 : level.stop - 1]
            levels.append(_Descend(level, weights, values_STBD, gates_STBD, actives_STBD, grads_SBD, grads_SBD))
        levels.reverse()
        dscale_D = dshift_D = None
        carried_BD = dread_1BD[0]
        for t in reversed(range(T)):
            total_BD = dout_TBD[t] if t == T - 1 else dout_TBD[t] + carried_BD
            if scale_D is not None:
                total_BD, one, other = _aten.native_batch_norm_backward(
                    total_BD.contiguous(), mean_TBD[t], scale_D, None, None, *ctx.statistics[t], True, EPSILON, [True] * 3
                )
                dscale_D, dshift_D = (one, other) if dscale_D is None else (dscale_D + one, dshift_D + other)
            torch.mul(shares_S11, total_BD, out=grads_SBD)
            dread_1BD.zero_()
            for descend in levels:
                descend(t)
            if mask_BD is not None:
                carried_BD.mul_(mask_BD)

        dinput_IG, dhidden_DG, *dedges = (torch.empty_like(w) for w in (input_IG, hidden_DG, *edges_DG))
        N = T * B
        x_NI, read_ND, values_SND = x_TBI.reshape(N, -1), read_TBD.view(N, D), values_STBD.view(S, N, D)
        products_SND = gates_STBD.view(S, N, D), actives_STBD.view(S, N, D)  # their gradients by now
        for half, gradients_SND in enumerate(products_SND):
            columns = slice(half * D, (half + 1) * D)
            torch.mm(x_NI.t(), gradients_SND[0], out=dinput_IG[:, columns])
            torch.mm(read_ND.t(), gradients_SND[0], out=dhidden_DG[:, columns])
            for slot, (parent, dedge) in enumerate(zip(plan.parents, dedges, strict=True), start=1):
                torch.mm(values_SND[parent].t(), gradients_SND[slot], out=dedge[:, columns])
        dx_TBI = None
        if ctx.needs_input_grad[2]:
            gate_GI, active_GI = (half.t() for half in input_IG.chunk(2, 1))
            dx_TBI = (products_SND[0][0] @ gate_GI).addmm_(products_SND[1][0], active_GI).view(x_TBI.shape)
        ctx.workspace.give(memory_3STBD)
        return None, None, dx_TBI, carried_BD, None, dinput_IG, dhidden_DG, dscale_D, dshift_D, *dedges


def _summed(values: Tensor) -> Tensor:
    """Over the first dimension."""
    return values[0] if len(values) == 1 else values.sum(0)


def _shares(plan: Plan, like: Tensor) -> Tensor:
    """Per slot the share that its value has in the mean (S, 1, 1)."""
    averaged = {slot for slots in plan.averaged for slot in slots}
    shares = [1 / plan.count if slot in averaged else 0.0 for slot in range(len(plan.order))]
    return torch.tensor(shares, dtype=like.dtype, device=like.device)[:, None, None]


class _Climb:
    """The values of a level, step by step, from those that its families read (`reads`, by slot)."""

    def __init__(
        self, level: Level, weights_DG: Sequence[Tensor], reads: Tensor, gates: Tensor, actives: Tensor, values: Tensor,
        beta: int = 0,
    ) -> None:  # fmt: skip
        self._beta = beta  # 1: x's part is there already
        self._gates = gates[level.start : level.stop].unbind(1)
        self._runs = [(run.activation, actives[run.start : run.stop].unbind(1)) for run in level.runs]
        self._families = [
            [part.unbind(1) for part in (reads[f.parent, None], *(x[f.start : f.stop] for x in (actives, gates, values)))]
            for f in level.families
        ]
        self._products = [
            (reads[parent].unbind(0), half, into[slot].unbind(0))
            for (parent, slot), weight in zip(level.edges, weights_DG, strict=True)
            for half, into in zip(weight.chunk(2, 1), (gates, actives), strict=True)
        ]

    def __call__(self, t: int) -> None:
        for read, weight, into in self._products:
            if self._beta:
                into[t].addmm_(read[t], weight)
            else:
                torch.mm(read[t], weight, out=into[t])
        torch.sigmoid(self._gates[t], out=self._gates[t])
        for activation, actives in self._runs:
            _activate(activation, actives[t])
        for reads, actives, gates, values in self._families:
            torch.lerp(reads[t], actives[t], gates[t], out=values[t])


class _Descend:
    """Back through a level, step by step: from the gradients of its values, in `grads`, to those of its products, which
    take the place of its gates and activations, and of what its families read, which are added to `into`."""

    def __init__(
        self, level: Level, weights_DG: Sequence[Tensor], reads: Tensor, gates: Tensor, actives: Tensor, grads: Tensor,
        into: Tensor,
    ) -> None:  # fmt: skip
        at = slice(level.start, level.stop)
        self._gates, self._actives, self._grads = gates[at].unbind(1), actives[at].unbind(1), grads[at]
        self._kept, self._slope = torch.empty_like(self._grads), torch.empty_like(self._grads)
        self._runs = [
            (run.activation, self._grads[run.start - level.start : run.stop - level.start], actives[run.start : run.stop])
            for run in level.runs
        ]
        self._runs = [(activation, grad, active.unbind(1)) for activation, grad, active in self._runs]
        self._one = grads.new_ones(())
        self._families = []
        for family in level.families:
            own = slice(family.start - level.start, family.stop - level.start)
            self._families.append(
                (
                    reads[family.parent, None].unbind(1),
                    actives[family.start : family.stop].unbind(1),
                    self._slope[own],
                    self._kept[own],
                    self._grads[own],
                    into[family.parent],
                )
            )
        self._products = [
            (into[parent], half.t(), products[slot].unbind(0))
            for (parent, slot), weight in zip(level.edges, weights_DG, strict=True)
            for half, products in zip(weight.chunk(2, 1), (gates, actives), strict=True)
        ]

    def __call__(self, t: int) -> None:
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
        for activation, run_grads, actives in self._runs:
            _before(activation, run_grads, actives[t])
        for into, weight, products in self._products:
            into.addmm_(products[t], weight)


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
    """The gradient before an activation, in the place of its value."""
    if activation == "tanh":
        _aten.tanh_backward.grad_input(grad, active, grad_input=active)
    elif activation == "sigmoid":
        _aten.sigmoid_backward.grad_input(grad, active, grad_input=active)
    elif activation == "relu":
        _aten.threshold_backward.grad_input(grad, active, 0, grad_input=active)
    else:
        active.copy_(grad)
