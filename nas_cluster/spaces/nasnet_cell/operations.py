"""The 13 operations as modules. Sizes: C channels of the state, F filters."""

from __future__ import annotations

from torch import nn

from nas_cluster.nn.convolutions import ConvNorm, FactorisedConvNorm, SeparableTwice
from nas_cluster.nn.pooling import SamePool
from nas_cluster.spaces.nasnet_cell.architecture import Operation

__all__ = ["make_operation", "reads_rectified"]


def make_operation(operation: Operation, channels: int, filters: int, stride: int) -> nn.Module:
    """Make the module from (N, C, H, W) to (N, F, ceil(H / stride), ceil(W / stride)).

    A pool is followed by a 1x1 convolution where C is not F; an identity is one where C or the size changes, and
    `nn.Identity` where it returns its very input.
    """
    match operation:
        case "identity":
            changes = stride > 1 or channels != filters
            return ConvNorm(channels, filters, stride=stride) if changes else nn.Identity()
        case "avg_pool_3x3" | "max_pool_3x3" | "max_pool_5x5" | "max_pool_7x7":
            pool = SamePool("avg" if operation.startswith("avg") else "max", int(operation[-1]), stride)
            return pool if channels == filters else nn.Sequential(pool, ConvNorm(channels, filters))
        case "sep_conv_3x3" | "sep_conv_5x5" | "sep_conv_7x7":
            return SeparableTwice(channels, filters, int(operation[-1]), stride)
        case "conv_1x3_3x1" | "conv_1x7_7x1":
            return FactorisedConvNorm(channels, filters, int(operation[-3]), stride)
        case "dil_conv_3x3":
            return ConvNorm(channels, filters, 3, stride, dilation=2)
        case "conv_1x1" | "conv_3x3":
            return ConvNorm(channels, filters, int(operation[-1]), stride)


def reads_rectified(operation: Operation, module: nn.Module) -> bool:
    """Whether a ReLU comes before the operation: it does before every convolution, not before pools and identities."""
    return "pool" not in operation and not isinstance(module, nn.Identity)
