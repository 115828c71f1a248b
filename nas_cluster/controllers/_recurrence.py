"""The LSTM of the policy over a whole sequence of known tokens, with its gradient written out.

Shapes: T decisions, B children, E input, H hidden; gates in the order input, forget, cell, output.

A controller is small: through autograd, step by step, the bookkeeping of a dozen operations per step costs ten times
their arithmetic. Here a step is seven operations forward and as many back, and everything that does not wait for the
step before (products with known inputs, derivatives of the gates, gradients of the weights) is done for all steps at
once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["Layer", "lstm_step", "unroll"]

Layer = tuple[Tensor, Tensor, Tensor]
"""Weights of the input (4H, in), bias (4H), weights of the hidden state before (4H, H)."""


def unroll(
    given_TBE: Tensor, mixture_TBT: Tensor, mixed: Sequence[int], feedback: Tensor | None, layers: Sequence[Layer]
) -> Tensor:
    """Hidden states (T, B, H) of the top layer, from zeros. The input of step t is `given[t]`, and for the steps in
    `mixed` plus the sum over earlier steps j of mixture[t, :, j] * hidden[j] (times `feedback` (E, H), where there is
    one)."""
    flat = [weight for layer in layers for weight in layer]
    hidden: Tensor = _Unrolled.apply(given_TBE, mixture_TBT, frozenset(mixed), feedback, *flat)
    return hidden


def lstm_step(gates_BG: Tensor, c_BH: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """New hidden and cell state; and sigmoids of all gates, tanh of the cell gate and of the new cell."""
    H = c_BH.shape[1]
    sigmoid_BG = torch.sigmoid(gates_BG)
    i_BH, f_BH, _, o_BH = sigmoid_BG.chunk(4, 1)
    g_BH = torch.tanh(gates_BG[:, 2 * H : 3 * H])
    c_BH = torch.addcmul(f_BH * c_BH, i_BH, g_BH)
    tanh_c_BH = torch.tanh(c_BH)
    return o_BH * tanh_c_BH, c_BH, sigmoid_BG, g_BH, tanh_c_BH


class _Unrolled(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, given_TBE: Tensor, mixture_TBT: Tensor, mixed: frozenset[int], feedback: Tensor | None, *flat: Tensor
    ) -> Tensor:
        layers = _layers(flat)
        T, B, _ = given_TBE.shape
        H = flat[2].shape[1]
        zero_BH = given_TBE.new_zeros(B, H)
        hidden, cell = [zero_BH for _ in layers], [zero_BH for _ in layers]
        kept: list[list[tuple[Tensor, ...]]] = [[] for _ in layers]
        top_TBH = given_TBE.new_empty(T, B, H)
        x_TBE = given_TBE.clone() if mixed else given_TBE
        w, bias, _ = layers[0]
        known_TBG = torch.addmm(bias, given_TBE.reshape(T * B, -1), w.t()).view(T, B, -1)
        for t in range(T):
            gates_BG = known_TBG[t]
            if t in mixed:
                mix_BE = torch.bmm(mixture_TBT[t, :, None, :t], top_TBH[:t].transpose(0, 1))[:, 0]
                mix_BE = mix_BE if feedback is None else mix_BE @ feedback.t()
                x_TBE[t] += mix_BE
                gates_BG = torch.addmm(gates_BG, mix_BE, w.t())
            for number, (w_input, b, w_hidden) in enumerate(layers):
                if number:
                    gates_BG = torch.addmm(b, hidden[number - 1], w_input.t())
                h_BH, c_BH, *rest = lstm_step(torch.addmm(gates_BG, hidden[number], w_hidden.t()), cell[number])
                kept[number].append((hidden[number], cell[number], *rest, h_BH))
                hidden[number], cell[number] = h_BH, c_BH
            top_TBH[t] = hidden[-1]
        ctx.mixed = mixed
        ctx.kept = [[torch.stack(parts) for parts in zip(*steps, strict=True)] for steps in kept]
        ctx.save_for_backward(mixture_TBT, x_TBE, top_TBH, feedback, *flat)
        return top_TBH

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_TBH: Tensor) -> tuple[Tensor | None, ...]:
        mixture_TBT, x_TBE, top_TBH, feedback, *flat = ctx.saved_tensors
        layers, kept = _layers(flat), ctx.kept
        T, B, H = grad_TBH.shape
        waiting_TBH = grad_TBH.clone()  # of the top layer's hidden states, as far as it is known
        slopes = [_slopes(*parts[1:5]) for parts in kept]
        of_gates = [grad_TBH.new_empty(T, B, 4, H) for _ in layers]
        of_h, of_c = ([grad_TBH.new_zeros(B, H) for _ in layers] for _ in range(2))
        top = len(layers) - 1
        for t in range(T - 1, -1, -1):
            above_BH = waiting_TBH[t]
            for number in range(top, -1, -1):
                to_cell_TBH, to_three_TB3H, to_o_TBH, f_TBH = slopes[number]
                h_BH = above_BH + of_h[number]
                c_BH = torch.addcmul(of_c[number], h_BH, to_cell_TBH[t])
                gates_B4H = of_gates[number][t]
                torch.mul(c_BH[:, None], to_three_TB3H[t], out=gates_B4H[:, :3])
                torch.mul(h_BH, to_o_TBH[t], out=gates_B4H[:, 3])
                of_c[number] = c_BH * f_TBH[t]
                gates_BG = gates_B4H.view(B, -1)
                of_h[number] = gates_BG @ layers[number][2]
                if number:
                    above_BH = gates_BG @ layers[number][0]
            if t in ctx.mixed:
                of_mix = of_gates[0][t].view(B, -1) @ layers[0][0]
                of_mix = of_mix if feedback is None else of_mix @ feedback
                waiting_TBH[:t] += mixture_TBT[t, :, :t].t()[:, :, None] * of_mix
        of_weights = []
        for number, gates_TB4H in enumerate(of_gates):
            flat_G = gates_TB4H.view(T * B, 4 * H)
            inputs = x_TBE if number == 0 else kept[number - 1][5]
            before = kept[number][0].view(T * B, H)
            of_weights += [flat_G.t() @ inputs.reshape(T * B, -1), flat_G.sum(0), flat_G.t() @ before]
        of_x_TBE = (of_gates[0].view(T * B, 4 * H) @ layers[0][0]).view(x_TBE.shape)
        of_feedback = None
        if feedback is not None:
            steps = sorted(ctx.mixed)
            mixes = torch.einsum("tbj,jbh->tbh", mixture_TBT[steps], top_TBH)
            of_feedback = torch.einsum("tbe,tbh->eh", of_x_TBE[steps], mixes)
        return of_x_TBE, None, None, of_feedback, *of_weights


def _layers(flat: Sequence[Tensor]) -> list[Layer]:
    return [(flat[n], flat[n + 1], flat[n + 2]) for n in range(0, len(flat), 3)]


def _slopes(
    before_TBH: Tensor, sigmoid_TBG: Tensor, g_TBH: Tensor, tanh_c_TBH: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Derivatives of all steps: of h by c; of c by three gates; of h by the output gate; of c by the c before."""
    i, f, _, o = sigmoid_TBG.chunk(4, 2)
    to_cell = o * (1 - tanh_c_TBH.square())
    to_three = torch.stack([g_TBH * i * (1 - i), before_TBH * f * (1 - f), i * (1 - g_TBH.square())], 2)
    return to_cell, to_three, tanh_c_TBH * o * (1 - o), f
