"""The cell over all steps of a window, with its gradient by hand.

A node's highway: h_l = h_j + c (a - h_j) with the gate c = sigmoid(h_j W^c) and the activation a = f(h_j W^h). The
first node reads h_{t-1} as h_j, and its products have a part of x_t, which is computed for the whole window at once.

Forward: per step two products per node and a few elementwise operations per level of the tree (plan.py). Backward: per
step a few elementwise operations per level turn gates and activations, in place, into the gradients of their products,
and two products per node go on to what it read. The gradient of a weight is one product for the whole window, after the
loop (levels.py has the steps). Only the weights of the cell's own edges are touched.

Shapes: T steps, B texts, I inputs, D units, S slots; G = 2D, the columns of W^c and W^h side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nas_cluster.spaces.enas_recurrent.fast.levels import Climb, Descend
from nas_cluster.spaces.enas_recurrent.fast.plan import Plan

__all__ = ["Workspace", "scan"]

_EPSILON = 1e-5
"""torch's default: what a batch norm adds to the variance."""

_aten = torch.ops.aten


class Workspace:
    """The memory of a window, which the next one uses again: on a CPU fresh memory costs as much as the elementwise
    operations do. On other devices torch's allocator does the same."""

    def __init__(self) -> None:
        self._free: Tensor | None = None

    def take(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """The memory is not initialised."""
        free, self._free = self._free, None
        fits = free is not None and free.shape == shape and free.dtype == like.dtype and free.device == like.device
        return free if fits and free is not None else like.new_empty(shape)

    def give(self, memory: Tensor) -> None:
        """Nobody reads this memory any more."""
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
    """A window gives the hidden states (T, B, D). edges: the weights of slots 1, 2, ...; norm: scale and shift of a
    batch norm of the mean, or None. mask multiplies the hidden state that every step reads. The gradient is not
    differentiable itself."""
    scale_D, shift_D = norm if norm is not None else (None, None)
    result: Tensor = _Scan.apply(
        torch.is_grad_enabled(), workspace, plan, x_TBI, h_BD, mask_BD, input_IG, hidden_DG, scale_D, shift_D, *edges_DG
    )
    return result


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        trains: bool,
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
        levels = [Climb(own, (hidden_DG,), read_TBD[None], memory_3STBD, has_part_of_x=True)]
        for level in plan.levels:
            weights = edges_DG[level.start - 1 : level.stop - 1]
            levels.append(Climb(level, weights, values_STBD, memory_3STBD))
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
                normalised, *found = torch.native_batch_norm(
                    means[t], scale_D, shift_D, None, None, True, 0.0, _EPSILON
                )
                outs[t].copy_(normalised)
                statistics.append(found)
            h_BD = outs[t]
        if trains:
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
        levels = [Descend(own, (hidden_DG,), read_TBD[None], memory_3STBD, grads_SBD, dread_1BD)]
        for level in plan.levels:
            weights = edges_DG[level.start - 1 : level.stop - 1]
            levels.append(Descend(level, weights, values_STBD, memory_3STBD, grads_SBD, grads_SBD))
        levels.reverse()
        dscale_D = dshift_D = None
        carried_BD = dread_1BD[0]
        for t in reversed(range(T)):
            total_BD = dout_TBD[t] if t == T - 1 else dout_TBD[t] + carried_BD
            if scale_D is not None:
                total_BD, one, other = _aten.native_batch_norm_backward(
                    total_BD.contiguous(),
                    mean_TBD[t],
                    scale_D,
                    None,
                    None,
                    *ctx.statistics[t],
                    True,
                    _EPSILON,
                    [True] * 3,
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
        if ctx.needs_input_grad[3]:
            gate_GI, active_GI = (half.t() for half in input_IG.chunk(2, 1))
            dx_TBI = (products_SND[0][0] @ gate_GI).addmm_(products_SND[1][0], active_GI).view(x_TBI.shape)
        ctx.workspace.give(memory_3STBD)
        return None, None, None, dx_TBI, carried_BD, None, dinput_IG, dhidden_DG, dscale_D, dshift_D, *dedges


def _summed(values: Tensor) -> Tensor:
    """The sum over the first dimension."""
    return values[0] if len(values) == 1 else values.sum(0)


def _shares(plan: Plan, like: Tensor) -> Tensor:
    """The share that the value of each slot has in the mean (S, 1, 1)."""
    shares_S11 = like.new_zeros(len(plan.order), 1, 1)
    for slots in plan.averaged:
        shares_S11[slots.start : slots.stop].fill_(1 / plan.count)
    return shares_S11
