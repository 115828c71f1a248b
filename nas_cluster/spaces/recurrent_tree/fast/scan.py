"""The cell over all steps of a window, with its gradient by hand.

Forward: one matrix product gives x's part of all leaves at all steps; then, per step, one product gives h's part of all
leaves and a handful of elementwise operations (layout.py) walk down the tree to the root.

Backward (factors.py): in a tree of elementwise operations the gradient at the root reaches each leaf by one factor, the
product of the derivatives on the way. The factors of all steps are computed at once, before the loop over time, so that
a step back is the same few operations for every architecture. The weights' gradients are one product each, after it.

Results go to buffers (`out=`): no allocation per step, and nothing that autocast would turn into another type.

Shapes: T steps, B texts, I inputs, H units, L leaves' units side by side, M those of leaves that do not add, S slots.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nas_cluster.spaces.recurrent_tree.fast.factors import Factors
from nas_cluster.spaces.recurrent_tree.fast.layout import Layout, Run

__all__ = ["scan"]

_LONG = 2048
"""From so many elements on three cheap operations are faster than one tanh."""


def _relu(x: Tensor, *, out: Tensor) -> Tensor:
    return torch.clamp_min(x, 0, out=out)


def _long_tanh(x: Tensor, *, out: Tensor, minus_one: Tensor) -> None:
    """2 sigmoid(2x) - 1 is tanh: on a CPU it is twice as fast as torch's when x is long, and within 2e-7 in float32."""
    torch.add(x, x, out=out)
    torch.sigmoid(out, out=out)
    torch.add(minus_one, out, alpha=2, out=out)


_FUNCTIONS: dict[str, Any] = {
    "add": torch.add,
    "elem_mult": torch.mul,
    "max": torch.maximum,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "relu": _relu,
    "sin": torch.sin,
}


def scan(
    layout: Layout,
    x_TBI: Tensor,
    h_BH: Tensor,
    c_BH: Tensor,
    input_weight_IL: Tensor,
    hidden_weight_HL: Tensor,
    mask_BH: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """A window gives the hidden states (T, B, H) and the last c (B, H). The weights' columns are leaves in the layout's
    order.

    mask_BH multiplies the hidden state that every step reads. Gradients reach everything but the mask, once: the
    backward pass is not differentiable itself.
    """
    operands = (layout, x_TBI, h_BH, c_BH, input_weight_IL, hidden_weight_HL, mask_BH)
    result: tuple[Tensor, Tensor] = _Scan.apply(*operands)
    return result


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        layout: Layout,
        x_TBI: Tensor,
        h_BH: Tensor,
        c_BH: Tensor,
        input_weight_IL: Tensor,
        hidden_weight_HL: Tensor,
        mask_BH: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        steps, batch = x_TBI.shape[:2]
        units = h_BH.shape[1]
        leaf_TBL = x_TBI.new_empty(steps, batch, input_weight_IL.shape[1])
        input_TBM = x_TBI.new_empty(steps, batch, (len(layout.leaves) - layout.added) * units)
        node_TSBH = x_TBI.new_empty(steps, layout.slots, batch, units)
        _project(x_TBI, input_weight_IL, leaf_TBL, input_TBM)
        buffers = _views(layout, leaf_TBL, input_TBM, node_TSBH)
        _climb(layout, buffers, leaf_TBL, h_BH, c_BH, hidden_weight_HL, mask_BH)
        h_TBH = _whole(buffers, layout.value(layout.architecture.root)).contiguous()
        ctx.layout = layout
        ctx.save_for_backward(
            *(x_TBI, h_BH, c_BH, input_weight_IL, hidden_weight_HL, mask_BH, h_TBH),
            *(leaf_TBL, input_TBM, node_TSBH),
        )
        ctx.set_materialize_grads(False)
        return h_TBH, _written(layout, buffers)[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dh_TBH: Tensor | None, dc_BH: Tensor | None) -> tuple[Tensor | None, ...]:
        x_TBI, h_BH, c_BH, input_weight_IL, hidden_weight_HL, mask_BH, h_TBH, *values = ctx.saved_tensors
        layout: Layout = ctx.layout
        rows = x_TBI.shape[0] * x_TBI.shape[1]
        added = layout.added * h_BH.shape[1]
        buffers = _views(layout, *values)
        read = torch.cat([c_BH[None], _written(layout, buffers)[:-1]])
        factors = Factors(layout, lambda run: read if run.buffer == "memory" else _whole(buffers, run))
        dh_TBH = torch.zeros_like(h_TBH) if dh_TBH is None else dh_TBH
        dh_BH, dc_BH = factors.descend(dh_TBH, dc_BH, hidden_weight_HL, mask_BH)

        leaf_NL, input_NM = factors.leaf_TBL.view(rows, -1), factors.input_TBM.view(rows, -1)
        read_TBH = torch.cat([h_BH[None], h_TBH[:-1]])
        if mask_BH is not None:
            read_TBH *= mask_BH
        hidden_grad_HL = torch.empty_like(hidden_weight_HL)
        torch.mm(read_TBH.view(rows, -1).t(), leaf_NL, out=hidden_grad_HL)
        x_NI = x_TBI.reshape(rows, -1)
        input_grad_IL = torch.empty_like(input_weight_IL)
        if added:
            torch.mm(x_NI.t(), leaf_NL[:, :added], out=input_grad_IL[:, :added])
        if input_NM.shape[1]:
            torch.mm(x_NI.t(), input_NM, out=input_grad_IL[:, added:])
        dx_TBI = None
        if ctx.needs_input_grad[1]:
            dx_NI = torch.empty_like(x_NI)
            torch.mm(leaf_NL[:, :added], input_weight_IL[:, :added].t(), out=dx_NI)
            if input_NM.shape[1]:
                torch.addmm(dx_NI, input_NM, input_weight_IL[:, added:].t(), out=dx_NI)
            dx_TBI = dx_NI.view(x_TBI.shape)
        return None, dx_TBI, dh_BH, dc_BH, input_grad_IL, hidden_grad_HL, None


def _project(x_TBI: Tensor, weight_IL: Tensor, leaf_TBL: Tensor, input_TBM: Tensor) -> None:
    """x's part of every leaf goes into `leaf` where it is added to h's, into `input` where not."""
    x_NI = x_TBI.reshape(-1, x_TBI.shape[2])
    leaf_NL, input_NM = leaf_TBL.view(len(x_NI), -1), input_TBM.view(len(x_NI), -1)
    added = leaf_NL.shape[1] - input_NM.shape[1]
    if added:
        torch.mm(x_NI, weight_IL[:, :added], out=leaf_NL[:, :added])
    if input_NM.shape[1]:
        torch.mm(x_NI, weight_IL[:, added:], out=input_NM)
        leaf_NL[:, added:].zero_()


def _climb(
    layout: Layout,
    buffers: dict[str, Tensor],
    leaf_TBL: Tensor,
    h_BH: Tensor,
    c_BH: Tensor,
    weight_HL: Tensor,
    mask_BH: Tensor | None,
) -> None:
    """All steps are computed in order and in place: `leaf` holds x's part before and h's as well after."""
    read = (c_BH, *_written(layout, buffers).unbind(0)[:-1])

    @cache
    def steps(run: Run) -> Sequence[Tensor]:
        return read if run.buffer == "memory" else _whole(buffers, run).unbind(0)

    program = []
    for i in layout.instructions:
        operands = [steps(run) for run in i.inputs]
        out = steps(i.out)
        function = _FUNCTIONS[i.function]
        if i.function == "tanh" and out[0].is_cpu and out[0].numel() >= _LONG:
            function = partial(_long_tanh, minus_one=out[0].new_full(out[0].shape, -1))
        program.append((function, out, operands[0], operands[1] if len(operands) > 1 else None))
    hidden = steps(layout.value(layout.architecture.root))
    for t, leaf_BL in enumerate(leaf_TBL.unbind(0)):
        if mask_BH is not None:
            h_BH = h_BH * mask_BH
        torch.addmm(leaf_BL, h_BH, weight_HL, out=leaf_BL)
        for function, out, left, right in program:
            if right is None:
                function(left[t], out=out[t])
            else:
                function(left[t], right[t], out=out[t])
        h_BH = hidden[t]


def _views(layout: Layout, leaf_TBL: Tensor, input_TBM: Tensor, node_TSBH: Tensor) -> dict[str, Tensor]:
    """The buffers by their names, each seen as (T, slots, B, H)."""
    steps, batch, _ = leaf_TBL.shape
    units = leaf_TBL.shape[2] // len(layout.leaves)

    def by_slot(values: Tensor) -> Tensor:
        return values.view(steps, batch, values.shape[2] // units, units).transpose(1, 2)

    return {"leaf": by_slot(leaf_TBL), "input": by_slot(input_TBM), "node": node_TSBH}


def _whole(buffers: dict[str, Tensor], run: Run) -> Tensor:
    """A run as it is at all steps: (T, B, H), or (T, count, B, H) of more than one slot."""
    buffer = buffers[run.buffer]
    return buffer[:, run.start] if run.count == 1 else buffer[:, run.start : run.last + 1 : run.step]


def _written(layout: Layout, buffers: dict[str, Tensor]) -> Tensor:
    """c_t as it was written at all steps (T, B, H)."""
    return _whole(buffers, layout.pre[layout.architecture.cell_from])
