"""The cell over all steps of a window, with its gradient by hand.

Forward: one matrix product gives x's part of the first node at all steps; then, per step, one product per family of
nodes that read the same node, and a few elementwise operations per level (plan.py).

Backward: the derivatives of every node's gate and activation are computed for all steps at once, before the loop over
time; a step back is one multiplication and one product per family. The weights' gradients are one product per family of
the whole window, after it. Only the weights of the cell's own edges are touched.

A node's highway: h_l = h_j + c (f(h_j W^h) - h_j), c = sigmoid(h_j W^c); the first node reads h_{t-1} as h_j, and x_t
as well. Shapes: T steps, B texts, I inputs, D units, S slots; G = 2D, columns of W^c and W^h side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nas_cluster.spaces.enas_recurrent.plan import Plan, Run

__all__ = ["EPSILON", "scan"]

_aten = torch.ops.aten

EPSILON = 1e-5
"""Of the batch norm."""

_CACHED = 1 << 16
"""Elements of a slot's values that the derivatives are worked out for at once on a CPU."""


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
    """Hidden states (T, B, D). edges: the weights of slots 1, 2, ...; norm: scale and shift of a batch norm of the mean,
    or None. mask multiplies the hidden state that every step reads. The gradient is not differentiable itself."""
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
        (T, B), D, S = x_TBI.shape[:2], h_BD.shape[1], len(plan.order)
        gates_TBS2D = x_TBI.new_empty(T, B, S, 2, D)
        values_TBSD = x_TBI.new_empty(T, B, S, D)
        out_TBD = x_TBI.new_empty(T, B, D)
        read_TBD = torch.empty_like(out_TBD)
        families = [_joined(edges_DG, f.start, f.stop) for f in plan.families]
        torch.mm(x_TBI.reshape(T * B, -1), input_IG, out=gates_TBS2D.view(T * B, -1)[:, : 2 * D])

        first_TBG, gate_TBD, active_TBD = _products(gates_TBS2D, 0, 1), gates_TBS2D[:, :, 0, 0], gates_TBS2D[:, :, 0, 1]
        program = list(
            zip(
                first_TBG.unbind(0),
                gate_TBD.unbind(0),
                active_TBD.unbind(0),
                values_TBSD[:, :, 0].unbind(0),
                read_TBD.unbind(0),
                out_TBD.unbind(0),
                values_TBSD.unbind(0),
                strict=True,
            )
        )
        levels = _levels(plan, families, gates_TBS2D, values_TBSD)
        mean = _Mean(plan, x_TBI)
        statistics: list[tuple[Tensor, Tensor]] = []
        mean_TBD = torch.empty_like(out_TBD) if scale_D is not None else out_TBD
        means = mean_TBD.unbind(0)
        for t, (first, gate, active, value, read, out, values) in enumerate(program):
            if mask_BD is None:
                read.copy_(h_BD)
            else:
                torch.mul(h_BD, mask_BD, out=read)
            torch.addmm(first, read, hidden_DG, out=first)
            torch.sigmoid(gate, out=gate)
            _activate(plan.first.activation, active)
            torch.lerp(read, active, gate, out=value)
            for products, gates, runs, highways in levels:
                for parent, weight, into in products:
                    torch.mm(parent[t], weight, out=into[t])
                torch.sigmoid(gates[t], out=gates[t])
                for activation, at in runs:
                    _activate(activation, at[t])
                for parent_value, active_part, gate_part, into in highways:
                    torch.lerp(parent_value[t], active_part[t], gate_part[t], out=into[t])
            mean(values, out=means[t])
            if scale_D is not None:
                normalised, *found = torch.native_batch_norm(means[t], scale_D, shift_D, None, None, True, 0.0, EPSILON)
                out.copy_(normalised)
                statistics.append((found[0], found[1]))
            h_BD = out
        ctx.plan, ctx.families, ctx.statistics = plan, families, statistics
        ctx.save_for_backward(
            x_TBI, mask_BD, input_IG, hidden_DG, scale_D, gates_TBS2D, values_TBSD, read_TBD, mean_TBD
        )
        return out_TBD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout_TBD: Tensor) -> tuple[Tensor | None, ...]:
        x_TBI, mask_BD, input_IG, hidden_DG, scale_D, gates_TBS2D, values_TBSD, read_TBD, mean_TBD = ctx.saved_tensors
        plan: Plan = ctx.plan
        T, B, S, _, D = gates_TBS2D.shape
        slopes_TBS2D, keep_TBSD = _derivatives(plan, gates_TBS2D, values_TBSD, read_TBD)
        back = [weight.t() for weight in ctx.families]
        hidden_GD = hidden_DG.t()
        share = 1 / len(plan.averaged)
        averaged = set(plan.averaged)
        families = [
            (
                family,
                _products(slopes_TBS2D, family.start, family.stop).unbind(0),
                slopes_TBS2D[:, :, family.start : family.parents_from].unbind(0),
                [
                    (s, slopes_TBS2D[:, :, s].unbind(0), keep_TBSD[:, :, s].unbind(0))
                    for s in range(family.parents_from, family.stop)
                ],
                keep_TBSD[:, :, family.start].unbind(0),
                weight,
            )
            for family, weight in zip(plan.families, back, strict=True)
        ][::-1]
        first, first_products = slopes_TBS2D[:, :, 0].unbind(0), _products(slopes_TBS2D, 0, 1).unbind(0)
        first_keep = keep_TBSD[:, :, 0].unbind(0)
        of_values: list[Tensor] = [dout_TBD.new_empty(B, D) for _ in range(S)]
        dscale_D = dshift_D = None
        carried_BD: Tensor | None = None
        for t in reversed(range(T)):
            total_BD = dout_TBD[t] if carried_BD is None else dout_TBD[t] + carried_BD
            if scale_D is not None:
                total_BD, one, other = _aten.native_batch_norm_backward(
                    total_BD.contiguous(), mean_TBD[t], scale_D, None, None, *ctx.statistics[t], True, EPSILON, [True] * 3
                )
                dscale_D, dshift_D = (one, other) if dscale_D is None else (dscale_D.add_(one), dshift_D.add_(other))
            share_BD = total_BD * share
            for family, products, childless, parents, keeps, weight in families:
                if family.start < family.parents_from:
                    childless[t].mul_(share_BD[:, None, None])
                for slot, slopes, _ in parents:
                    slopes[t].mul_(of_values[slot][:, None])
                into = of_values[family.parent]
                torch.mm(products[t], weight, out=into)
                if family.start < family.parents_from:
                    into.addcmul_(share_BD, keeps[t])
                for slot, _, keep in parents:
                    into.addcmul_(of_values[slot], keep[t])
                if plan.all_nodes and family.parent in averaged:
                    into.add_(share_BD)
            of_first = of_values[0] if S > 1 else share_BD
            first[t].mul_(of_first[:, None])
            carried_BD = torch.addmm(of_first * first_keep[t], first_products[t], hidden_GD)
            if mask_BD is not None:
                carried_BD = carried_BD * mask_BD
        rows = T * B
        x_NI, first_NG = x_TBI.reshape(rows, -1), _products(slopes_TBS2D, 0, 1).reshape(rows, -1)
        dx_TBI = (first_NG @ input_IG.t()).view(x_TBI.shape) if ctx.needs_input_grad[1] else None
        dedges: list[Tensor] = []
        for family in plan.families:
            value_ND = values_TBSD.view(rows, S, D)[:, family.parent]
            slopes_NG = _products(slopes_TBS2D, family.start, family.stop).flatten(0, 1)
            dedges += (value_ND.t() @ slopes_NG).split(2 * D, 1)
        dhidden_DG = read_TBD.view(rows, D).t() @ first_NG
        return (
            *(None, dx_TBI, carried_BD, None, x_NI.t() @ first_NG, dhidden_DG, dscale_D, dshift_D),
            *dedges,
        )


def _joined(edges_DG: Sequence[Tensor], start: int, stop: int) -> Tensor:
    """The weights of a family side by side; slot 1 has the first of the edges."""
    return edges_DG[start - 1] if stop - start == 1 else torch.cat(edges_DG[start - 1 : stop - 1], 1)


def _products(gates_TBS2D: Tensor, start: int, stop: int) -> Tensor:
    """(T, B, G times slots), a view: what a family's matrix product writes or reads."""
    return gates_TBS2D[:, :, start:stop].flatten(2)


def _levels(plan: Plan, families: Sequence[Tensor], gates_TBS2D: Tensor, values_TBSD: Tensor) -> list[Any]:
    """Per level the operands of its operations, each a sequence over time."""
    weights = dict(zip(plan.families, families, strict=True))
    levels = []
    for level in plan.levels:
        products, highways = [], []
        for family in level.families:
            parent_TBD, members = values_TBSD[:, :, family.parent], family.members
            into = _products(gates_TBS2D, family.start, family.stop).unbind(0)
            products.append((parent_TBD.unbind(0), weights[family], into))
            highways.append(
                (
                    parent_TBD[:, :, None].unbind(0),
                    gates_TBS2D[:, :, members, 1].unbind(0),
                    gates_TBS2D[:, :, members, 0].unbind(0),
                    values_TBSD[:, :, members].unbind(0),
                )
            )
        runs = [
            (run.activation, gates_TBS2D[:, :, run.members, 1].unbind(0))
            for run in level.runs
            if run.activation != "identity"
        ]
        levels.append((products, gates_TBS2D[:, :, level.start : level.stop, 0].unbind(0), runs, highways))
    return levels


class _Mean:
    """The mean over the averaged slots of (B, S, D)."""

    def __init__(self, plan: Plan, like: Tensor) -> None:
        slots = plan.averaged
        self._span = slice(slots[0], slots[-1] + 1) if len(slots) == slots[-1] - slots[0] + 1 else None
        self._slots = torch.tensor(slots, device=like.device)

    def __call__(self, values_BSD: Tensor, *, out: Tensor) -> None:
        chosen = values_BSD.index_select(1, self._slots) if self._span is None else values_BSD[:, self._span]
        torch.mean(chosen, 1, out=out)


def _activate(activation: str, x: Tensor) -> None:
    if activation == "tanh":
        torch.tanh(x, out=x)
    elif activation == "relu":
        torch.clamp_min(x, 0, out=x)
    elif activation == "sigmoid":
        torch.sigmoid(x, out=x)


def _derivatives(plan: Plan, gates_TBS2D: Tensor, values_TBSD: Tensor, read_TBD: Tensor) -> tuple[Tensor, Tensor]:
    """Of every node's value by its two products (T, B, S, 2, D), and by the value it reads past its gate (T, B, S, D);
    the latter summed up over the childless members of a family, in the slot of the first."""
    slopes_TBS2D, keep_TBSD = torch.empty_like(gates_TBS2D), torch.empty_like(values_TBSD)
    steps = len(read_TBD)
    at_once = max(1, _CACHED // read_TBD[0].numel()) if read_TBD.is_cpu else steps
    for now in (slice(start, start + at_once) for start in range(0, steps, at_once)):
        gates, values, slopes, keep = gates_TBS2D[now], values_TBSD[now], slopes_TBS2D[now], keep_TBSD[now]
        _derive(plan.first, 0, 1, read_TBD[now, :, None], gates, slopes, keep)
        for level in plan.levels:
            for family in level.families:
                parent = values[:, :, family.parent, None]
                for run in level.runs:
                    start, stop = max(run.start, family.start), min(run.stop, family.stop)
                    if start < stop:
                        _derive(run, start, stop, parent, gates, slopes, keep)
                if family.parents_from - family.start > 1:
                    keep[:, :, family.start] = keep[:, :, family.start : family.parents_from].sum(2)
    return slopes_TBS2D, keep_TBSD


def _derive(run: Run, start: int, stop: int, read: Tensor, gates: Tensor, slopes: Tensor, keep: Tensor) -> None:
    """For slots of one activation that read one value."""
    gate, active = gates[:, :, start:stop, 0], gates[:, :, start:stop, 1]
    kept = torch.neg(gate, out=keep[:, :, start:stop]).add_(1)
    torch.sub(active, read, out=slopes[:, :, start:stop, 0]).mul_(gate).mul_(kept)
    by_active = slopes[:, :, start:stop, 1]
    if run.activation == "tanh":
        by_active.copy_(_aten.tanh_backward(gate, active))
    elif run.activation == "sigmoid":
        by_active.copy_(_aten.sigmoid_backward(gate, active))
    elif run.activation == "relu":
        by_active.copy_(_aten.threshold_backward(gate, active, 0))
    else:
        by_active.copy_(gate)
