"""An architecture as the tensor that conditions the hypernetwork (the paper's section 3.2; the released channels).

Shapes: C channels, k rows for units of output, S slices, each of D units read. What is on is 1, all else -1. Only the
first `units` rows of an operation's slices are filled.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nas_cluster.spaces.memory_bank.geometry import Geometry
from nas_cluster.spaces.memory_bank.plan import NetworkPlan, OpPlan

__all__ = ["channels_of", "condition"]

_BLOCKS = 3


def _layout(geometry: Geometry) -> list[tuple[str, int]]:
    """The groups of channels, in order. Those of convolutions come once for each that is decided."""
    places = geometry.places if geometry.places == 1 else 4
    kernel = 2 * len(geometry.kernels) if len(geometry.kernels) > 1 else 0
    return [
        ("read", geometry.max_banks),
        ("write", geometry.max_banks),
        ("block", _BLOCKS),
        ("units", geometry.max_units),
        ("dilation", 2 * geometry.max_dilation * places),
        ("kernel", kernel * places),
        ("mask", 4 if geometry.operation == "variable" else 0),
        ("groups", len(geometry.groups) * places if len(geometry.groups) > 1 else 0),
    ]


def channels_of(geometry: Geometry) -> int:
    """The number of channels, C."""
    return sum(size for _, size in _layout(geometry))


def condition(geometry: Geometry, plan: NetworkPlan) -> NDArray[np.float32]:
    """The tensor (C, k, S) of the architecture that the plan is of; S are the slices that it uses."""
    starts, start = {}, 0
    for name, size in _layout(geometry):
        starts[name] = start
        start += size
    c_CkS = np.full((start, geometry.max_units, plan.slices), -1, np.float32)
    for block in plan.blocks:
        for op in block.ops:
            first, past = op.slices
            on = [starts["write"] + bank for bank in op.op.writes]
            on += [starts["block"] + block.number, starts["units"] + op.op.units - 1]
            on += [starts[name] + offset for name, offset in _of_convolutions(geometry, op)]
            c_CkS[on, : op.op.units, first:past] = 1
            size = block.bank // geometry.unit
            for place, bank in enumerate(op.op.reads):
                begins = first + place * size // geometry.compression
                ends = first - (-(place + 1) * size // geometry.compression)
                c_CkS[starts["read"] + bank, : op.op.units, begins:ends] = 1
    return c_CkS


def _of_convolutions(geometry: Geometry, op: OpPlan) -> list[tuple[str, int]]:
    """Everything that is on of the convolutions, as (group of channels, place in it)."""
    found = []
    for place, plan in enumerate(op.convolutions):
        if plan is None:
            continue
        convolution = plan.convolution
        for side in (0, 1):
            at = 2 * place + side
            found.append(("dilation", at * geometry.max_dilation + convolution.dilation[side] - 1))
            if len(geometry.kernels) > 1:
                found.append(("kernel", at * len(geometry.kernels) + geometry.kernels.index(convolution.kernel[side])))
        if geometry.operation == "variable":
            found.append(("mask", place))
        if len(geometry.groups) > 1:
            found.append(("groups", place * len(geometry.groups) + geometry.groups.index(convolution.groups)))
    return found
