"""How a network of memory banks computes, given its weights: the same for a child with weights of its own and for the
shared network, whose weights are generated or cut out of larger ones.

Shapes: N images, C channels, H W height and width. Banks are feature maps; an empty bank is None.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from nas_cluster.nn.concatenate import concatenate
from nas_cluster.nn.pooling import global_average
from nas_cluster.spaces.memory_bank.plan import BlockPlan, NetworkPlan, OpPlan

__all__ = ["Map", "Parts", "run_block", "run_network", "run_op"]

Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Parts:
    """The weighted parts that a network has: `stem`, the operations of every block, batch norm and 1x1 convolution of
    both transitions, the last batch norm and the classifier.

        >>> image = torch.ones(1, 2, 4, 4)
        >>> parts = Parts(torch.neg, [[torch.neg]], [], torch.neg, torch.flatten)
        >>> parts.classifier(parts.norm(parts.ops[0][0](parts.stem(image)))).sum().item()
        -32.0
    """

    stem: Map
    ops: Sequence[Sequence[Map]]
    transitions: Sequence[tuple[Map, Map]]
    norm: Map
    classifier: Map


def run_network(plan: NetworkPlan, parts: Parts, images: Tensor) -> Tensor:
    """The logits (N, classes) of images. A transition averages before its 1x1 convolution, not after: it is the same
    function, at a quarter of the cost."""
    x = parts.stem(images)
    for number, block in enumerate(plan.blocks):
        x = run_block(block, parts.ops[number], x)
        if number < len(parts.transitions):
            norm, convolution = parts.transitions[number]
            x = convolution(F.avg_pool2d(F.relu(norm(x)), 2))
    return parts.classifier(global_average(F.relu(parts.norm(x))))


def run_block(block: BlockPlan, ops: Sequence[Map], x: Tensor) -> Tensor:
    """The input is split over the first banks; every operation's output is added to the banks it writes; at the end all
    banks are concatenated."""
    banks: list[Tensor | None] = [*torch.split(x, block.bank, 1), *[None] * (block.banks - block.live)]
    for plan, op in zip(block.ops, ops, strict=True):
        y = op(_joined([banks[bank] for bank in plan.op.reads]))
        outputs = torch.split(y, block.bank, 1)
        for place, bank in enumerate(plan.op.writes):
            piece, held = outputs[place % plan.pieces], banks[bank]
            banks[bank] = piece if held is None else held + piece
    return _joined(banks)


def _joined(banks: Sequence[Tensor | None]) -> Tensor:
    return concatenate([bank for bank in banks if bank is not None])


def run_op(
    plan: OpPlan,
    x: Tensor,
    reduce: Tensor,
    weights: Sequence[Tensor | None],
    norm: Callable[[str, Tensor], Tensor] = lambda name, x: x,
) -> Tensor:
    """The 1x1 convolution with `reduce` comes first, then the paths; every other convolution rectifies its input.

    norm(name, x): the batch norm before a convolution, "reduce" or its number, where there is one.
    """

    def convolve(place: int, x: Tensor) -> Tensor:
        c, weight = plan.op.convolutions[place], weights[place]
        assert c is not None and weight is not None
        return F.conv2d(F.relu(norm(str(place), x)), weight, None, 1, c.padding, c.dilation, c.groups)

    x = norm("reduced", F.conv2d(norm("reduce", x), reduce))
    _, in_first, second, in_second = plan.op.mask
    p = convolve(0, x)
    q = convolve(2, x) if second else None
    if in_first:
        p = convolve(1, p)
    if in_second:
        q = convolve(3, p if q is None else q)
    return p if q is None else p + q
