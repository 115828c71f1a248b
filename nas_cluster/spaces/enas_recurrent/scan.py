"""The cell over all steps of a window, with its gradient by hand.

Forward: one matrix product gives x's part of the first node at all steps; then, per step, one product per family of
nodes that read the same node (plan.py) and a few elementwise operations for all of them.

Backward: per step and family, elementwise operations turn gates and activations, in place, into the gradients of their
products, and one product goes on to the node that was read. The weights' gradients are one product per family of the
whole window, after the loop. Only the weights of the cell's own edges are touched.

A node's highway: h_l = h_j + c (f(h_j W^f) - h_j), c = sigmoid(h_j W^c); the first node reads h_{t-1} as h_j, and x_t
as well. Shapes: T steps, B texts, I inputs, D units, K members of a family, F families; G = 2D and P = 2KD, columns of
all W^c, then of all W^f.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nas_cluster.spaces.enas_recurrent.plan import Family, Plan, Run

__all__ = ["EPSILON", "scan"]

EPSILON = 1e-5
"""Of the batch norm."""

_aten = torch.ops.aten


def scan(
    plan: Plan,
    x_TBI: Tensor,
    h_BD: Tensor,
    mask_BD: Tensor | None,
    input_IG: Tensor,
    hidden_DG: Tensor,
    norm: tuple[Tensor, Tensor] | None,
    edges_DG: Sequence[Tensor],
) -> Tensor:
    """Hidden states (T, B, D). edges: the weights of the nodes of `plan.order`; norm: scale and shift of a batch norm of
    the mean, or None. mask multiplies the hidden state that every step reads. The gradient is not differentiable itself.
    """
    scale_D, shift_D = norm if norm is not None else (None, None)
    result: Tensor = _Scan.apply(plan, x_TBI, h_BD, mask_BD, input_IG, hidden_DG, scale_D, shift_D, *edges_DG)
    return result


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
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
        (T, B), D = x_TBI.shape[:2], h_BD.shape[1]
        weights = _joined(plan, edges_DG)
        first_TB2D = x_TBI.new_empty(T, B, 2, D)
        torch.mm(x_TBI.reshape(T * B, -1), input_IG, out=first_TB2D.view(T * B, 2 * D))
        gates = [x_TBI.new_empty(T, B, 2, len(family.nodes), D) for family in plan.families]
        values_FTBD = x_TBI.new_empty(max(len(plan.families), 1), T, B, D)
        read_TBD, mean_TBD = x_TBI.new_empty(T, B, D), x_TBI.new_empty(T, B, D)
        out_TBD = mean_TBD if scale_D is None else torch.empty_like(mean_TBD)
        steps = [_Forward(family, g, weight, values_FTBD[i], values_FTBD) for i, (family, g, weight) in _each(plan, gates, weights)]
        products, firsts = first_TB2D.flatten(2).unbind(0), first_TB2D.unbind(0)
        reads, roots, means, outs = (x.unbind(0) for x in (read_TBD, values_FTBD[0], mean_TBD, out_TBD))
        statistics: list[list[Tensor]] = []
        whole = Run(plan.first, 0, 1)
        for t, read in enumerate(reads):
            if mask_BD is None:
                read.copy_(h_BD)
            else:
                torch.mul(h_BD, mask_BD, out=read)
            torch.addmm(products[t], read, hidden_DG, out=products[t])
            gate, active = firsts[t].unbind(1)
            torch.sigmoid(gate, out=gate)
            _activate(whole, active)
            torch.lerp(read, active, gate, out=roots[t])
            if steps:
                parts = [part for step in steps if (part := step(t)) is not None]
                if plan.all_nodes and len(steps) > 1:
                    parts += [values_FTBD[1:, t].sum(0)]
                for part in parts[1:]:
                    parts[0] += part
                torch.mul(parts[0], 1 / plan.averaged, out=means[t])
            else:
                means[t].copy_(roots[t])
            if scale_D is not None:
                normalised, *found = torch.native_batch_norm(means[t], scale_D, shift_D, None, None, True, 0.0, EPSILON)
                outs[t].copy_(normalised)
                statistics.append(found)
            h_BD = outs[t]
        ctx.plan, ctx.weights, ctx.statistics = plan, weights, statistics
        mean = mean_TBD if scale_D is not None else None
        ctx.save_for_backward(
            *(x_TBI, mask_BD, input_IG, hidden_DG, scale_D, read_TBD, mean, values_FTBD, first_TB2D), *gates
        )
        return out_TBD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout_TBD: Tensor) -> tuple[Tensor | None, ...]:
        x_TBI, mask_BD, input_IG, hidden_DG, scale_D, read_TBD, mean_TBD, values_FTBD, first_TB2D, *gates = (
            ctx.saved_tensors
        )
        plan: Plan = ctx.plan
        T, B, D = dout_TBD.shape
        grads_FBD = dout_TBD.new_empty(max(len(plan.families), 1), B, D)  # of the values that families read
        steps = [_Backward(family, g, weight, values_FTBD[i], grads_FBD[i], grads_FBD) for i, (family, g, weight) in _each(plan, gates, ctx.weights)]
        root = _Backward(Family((0,), 1, (), (Run(plan.first, 0, 1),)), first_TB2D.unsqueeze(3), hidden_DG, read_TBD, torch.empty_like(grads_FBD[0]), grads_FBD)
        dscale_D = dshift_D = carried_BD = None
        for t in reversed(range(T)):
            total_BD = dout_TBD[t] if carried_BD is None else dout_TBD[t] + carried_BD
            if scale_D is not None:
                total_BD, one, other = _aten.native_batch_norm_backward(
                    total_BD.contiguous(), mean_TBD[t], scale_D, None, None, *ctx.statistics[t], True, EPSILON, [True] * 3
                )
                dscale_D, dshift_D = (one, other) if dscale_D is None else (dscale_D.add_(one), dshift_D.add_(other))
            share_BD = total_BD * (1 / plan.averaged)
            for number in reversed(range(len(steps))):
                steps[number](t, share_BD)
                if plan.all_nodes and number:
                    grads_FBD[number] += share_BD
            carried_BD = root(t, grads_FBD[0] if steps else share_BD)
            if mask_BD is not None:
                carried_BD = carried_BD * mask_BD
        N = T * B
        x_NI, first_NG, read_ND = x_TBI.reshape(N, -1), first_TB2D.view(N, 2 * D), read_TBD.view(N, D)
        dx_TBI = (first_NG @ input_IG.t()).view(x_TBI.shape) if ctx.needs_input_grad[1] else None
        dedges: list[Tensor] = []
        for i, family in enumerate(plan.families):
            whole_DP = values_FTBD[i].view(N, D).t() @ gates[i].view(N, -1)
            by_member = whole_DP.view(D, 2, len(family.nodes), D).unbind(2)
            dedges += [part.reshape(D, 2 * D) for part in by_member]
        carried = carried_BD.clone() if carried_BD is not None else None
        dinput_IG, dhidden_DG = x_NI.t() @ first_NG, read_ND.t() @ first_NG
        return None, dx_TBI, carried, None, dinput_IG, dhidden_DG, dscale_D, dshift_D, *dedges


def _each(plan: Plan, gates: Sequence[Tensor], weights: Sequence[Tensor]) -> Any:
    return enumerate(zip(plan.families, gates, weights, strict=True))


def _joined(plan: Plan, edges_DG: Sequence[Tensor]) -> list[Tensor]:
    """Per family its weights (D, P)."""
    weights, start = [], 0
    for family in plan.families:
        own = edges_DG[start : start + len(family.nodes)]
        start += len(own)
        halves = [edge.chunk(2, 1) for edge in own]
        weights.append(own[0] if len(own) == 1 else torch.cat([half[i] for i in (0, 1) for half in halves], 1))
    return weights


class _Forward:
    """One family, step by step. Called with t, it gives the sum of its childless members' values (B, D), or None."""

    def __init__(self, family: Family, gates_TB2KD: Tensor, weight_DP: Tensor, value_TBD: Tensor, values_FTBD: Tensor) -> None:
        self._weight, childless = weight_DP, family.childless
        self._products, (gates, actives) = gates_TB2KD.flatten(2).unbind(0), gates_TB2KD.unbind(2)
        self._gates, self._reads = gates.unbind(0), value_TBD.unbind(0)
        self._runs = [(run, actives[:, :, run.start : run.stop].unbind(0)) for run in family.runs]
        self._highways = [
            (actives[:, :, k].unbind(0), gates[:, :, k].unbind(0), values_FTBD[number].unbind(0))
            for k, number in enumerate(family.families, start=childless)
        ]
        self._ends = (actives[:, :, :childless].unbind(0), gates[:, :, :childless].unbind(0)) if childless else None

    def __call__(self, t: int) -> Tensor | None:
        read_BD = self._reads[t]
        torch.mm(read_BD, self._weight, out=self._products[t])
        torch.sigmoid(self._gates[t], out=self._gates[t])
        for run, active in self._runs:
            _activate(run, active[t])
        for active, gate, value in self._highways:
            torch.lerp(read_BD, active[t], gate[t], out=value[t])
        if self._ends is None:
            return None
        active, gate = self._ends
        ends_BKD = torch.lerp(read_BD[:, None], active[t], gate[t])
        return ends_BKD[:, 0] if ends_BKD.shape[1] == 1 else ends_BKD.sum(1)


class _Backward:
    """One family, step by step. Called with t and the gradient (B, D) of every childless member's value, it turns the
    family's gates and activations at t into the gradients of its products, and writes that of the value it read."""

    def __init__(
        self, family: Family, gates_TB2KD: Tensor, weight_DP: Tensor, read_TBD: Tensor, into_BD: Tensor, grads_FBD: Tensor
    ) -> None:
        self._weight_PD, self._into = weight_DP.t(), into_BD
        self._products, (gates, actives) = gates_TB2KD.flatten(2).unbind(0), gates_TB2KD.unbind(2)
        self._gates, self._actives, self._reads = gates.unbind(0), actives.unbind(0), read_TBD[:, :, None].unbind(0)
        self._runs = family.runs
        B, K, D = self._gates[0].shape
        self._childless = family.childless
        self._members = [(k, grads_FBD[number]) for k, number in enumerate(family.families, start=family.childless)]
        self._grad_BKD, self._kept_BKD, self._other_BKD = grads_FBD.new_empty(3, B, K, D).unbind(0)

    def __call__(self, t: int, share_BD: Tensor) -> Tensor:
        gate_BKD, active_BKD, read_B1D = self._gates[t], self._actives[t], self._reads[t]
        grad_BKD, kept_BKD, other_BKD = self._grad_BKD, self._kept_BKD, self._other_BKD
        if self._childless:
            grad_BKD[:, : self._childless] = share_BD[:, None]
        for k, value in self._members:
            grad_BKD[:, k] = value
        torch.neg(gate_BKD, out=kept_BKD).add_(1)
        past_BKD = grad_BKD * kept_BKD  # what reaches the value read past the gate
        grad_BKD.mul_(gate_BKD)
        torch.sub(active_BKD, read_B1D, out=other_BKD).mul_(grad_BKD)
        torch.mul(other_BKD, kept_BKD, out=gate_BKD)
        for run in self._runs:
            _before(run, grad_BKD[:, run.start : run.stop], active_BKD[:, run.start : run.stop])
        past_BD = past_BKD[:, 0] if past_BKD.shape[1] == 1 else past_BKD.sum(1)
        return torch.addmm(past_BD, self._products[t], self._weight_PD, out=self._into)


def _activate(run: Run, x: Tensor) -> None:
    if run.activation == "tanh":
        torch.tanh(x, out=x)
    elif run.activation == "relu":
        torch.clamp_min(x, 0, out=x)
    elif run.activation == "sigmoid":
        torch.sigmoid(x, out=x)


def _before(run: Run, grad: Tensor, active: Tensor) -> None:
    """The gradient before an activation, over its value."""
    if run.activation == "tanh":
        _aten.tanh_backward.grad_input(grad, active, grad_input=active)
    elif run.activation == "sigmoid":
        _aten.sigmoid_backward.grad_input(grad, active, grad_input=active)
    elif run.activation == "relu":
        _aten.threshold_backward.grad_input(grad, active, 0, grad_input=active)
    else:
        active.copy_(grad)
