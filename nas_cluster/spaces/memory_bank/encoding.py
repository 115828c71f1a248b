"""An architecture as the tensor that conditions the hypernetwork (the paper's section 3.2; the released channels).

Shapes: C channels, k rows for units of output, S slices, each of D units read. What is on is 1, all else -1. Only the
first `units` rows of an operation's slices are filled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nas_cluster.spaces.memory_bank.plan import NetworkPlan, OpPlan

if TYPE_CHECKING:
    from nas_cluster.spaces.memory_bank.space import MemoryBank

__all__ = ["channels_of", "condition"]

_BLOCKS = 3


def _layout(space: MemoryBank) -> list[tuple[str, int]]:
    """Groups of channels in order. Those of convolutions come once for each that is decided."""
    places = space.places if space.places == 1 else 4
    kernel = 2 * len(space.kernels) if len(space.kernels) > 1 else 0
    return [
        ("read", space.max_banks),
        ("write", space.max_banks),
        ("block", _BLOCKS),
        ("units", space.max_units),
        ("dilation", 2 * space.max_dilation * places),
        ("kernel", kernel * places),
        ("mask", 4 if space.operation == "variable" else 0),
        ("groups", len(space.groups) * places if len(space.groups) > 1 else 0),
    ]


def channels_of(space: MemoryBank) -> int:
    """C."""
    return sum(size for _, size in _layout(space))


def condition(space: MemoryBank, plan: NetworkPlan) -> NDArray[np.float32]:
    """(C, k, S) of the architecture, S being the slices that it uses."""
    starts, start = {}, 0
    for name, size in _layout(space):
        starts[name] = start
        start += size
    c_CkS = np.full((start, space.max_units, plan.slices), -1, np.float32)
    for block in plan.blocks:
        for op in block.ops:
            first, past = op.slices
            on = [starts["write"] + bank for bank in op.op.writes]
            on += [starts["block"] + block.number, starts["units"] + op.op.units - 1]
            on += [channel for name, offset in _of_convolutions(space, op) for channel in [starts[name] + offset]]
            c_CkS[on, : op.op.units, first:past] = 1
            size = block.bank // space.unit
            for place, bank in enumerate(op.op.reads):
                begins = first + place * size // space.compression
                ends = first - (-(place + 1) * size // space.compression)
                c_CkS[starts["read"] + bank, : op.op.units, begins:ends] = 1
    return c_CkS


def _of_convolutions(space: MemoryBank, op: OpPlan) -> list[tuple[str, int]]:
    """(group of channels, place in it) of everything that is on."""
    found = []
    for place, plan in enumerate(op.convolutions):
        if plan is None:
            continue
        convolution = plan.convolution
        for side in (0, 1):
            at = 2 * place + side
            found.append(("dilation", at * space.max_dilation + convolution.dilation[side] - 1))
            if len(space.kernels) > 1:
                found.append(("kernel", at * len(space.kernels) + space.kernels.index(convolution.kernel[side])))
        if space.operation == "variable":
            found.append(("mask", place))
        if len(space.groups) > 1:
            found.append(("groups", place * len(space.groups) + space.groups.index(convolution.groups)))
    return found
