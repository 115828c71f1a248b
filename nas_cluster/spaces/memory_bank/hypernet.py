"""The hypernetwork: architecture and noise in, the weights of all 1x1 convolutions out (the paper's appendix A).

Shapes: C channels of the condition, k rows of units, S slices; W is (S * D * N, k * B * N), one row per channel read
and one column per channel given, N channels of a unit, D units of a slice, B = `columns`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas_cluster.nn.concatenate import concatenate
from nas_cluster.spaces.memory_bank.architecture import HyperNetOptions
from nas_cluster.spaces.memory_bank.encoding import channels_of
from nas_cluster.spaces.memory_bank.geometry import Geometry

__all__ = ["HyperNet", "pack"]

_SLOPE = 0.02


class HyperNet(nn.Module):
    """A dense net over (k, S): its convolutions have a weight that is divided by its norm, no bias and no batch norm; a
    leaky ReLU precedes each but the first."""

    def __init__(self, geometry: Geometry, options: HyperNetOptions) -> None:
        super().__init__()
        self._slice_rows = geometry.slice_channels
        channels = 1 + channels_of(geometry)
        self.first = _Normed(channels, options.first, 3)
        channels += options.first
        self.blocks = nn.ModuleList()
        self.transitions = nn.ModuleList()
        for number, layers in enumerate(options.layers):
            block = nn.ModuleList(
                _Normed(channels + place * options.growth, options.growth, 3) for place in range(layers)
            )
            self.blocks.append(block)
            channels += layers * options.growth
            if number < len(options.layers) - 1:
                self.transitions.append(_Normed(channels, channels // 2, options.transition_kernel))
                channels //= 2
        self.last = _Normed(channels, geometry.unit * geometry.columns * geometry.slice_channels, 1)

    def forward(self, c_CkS: Tensor) -> Tensor:
        """W for this condition, with fresh noise from torch's global generator. It is always float32 or wider."""
        with torch.autocast(c_CkS.device.type, enabled=False):
            z_1kS = torch.randn(1, *c_CkS.shape[1:], dtype=c_CkS.dtype, device=c_CkS.device)
            x = torch.cat([z_1kS, c_CkS])[None]
            x = concatenate([x, self.first(x)])
            for number, block in enumerate(self.blocks):
                for layer in block:  # type: ignore[attr-defined]
                    x = concatenate([x, layer(F.leaky_relu(x, _SLOPE))])
                if number < len(self.transitions):
                    x = self.transitions[number](F.leaky_relu(x, _SLOPE))
            return pack(self.last(F.leaky_relu(x, _SLOPE))[0], self._slice_rows)


class _Normed(nn.Module):
    """A k x k convolution that keeps the size; its weight is divided by its Frobenius norm."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, kernel, kernel))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight / torch.linalg.vector_norm(self.weight), padding=self.weight.shape[2] // 2)


def pack(o_OkS: Tensor, slice_rows: int) -> Tensor:
    """W[q * R + j, i * n + m] is o[m * R + j, i, q], with R = slice_rows and n = O / R columns for each of k rows."""
    channels, k, slices = o_OkS.shape
    columns = channels // slice_rows
    return o_OkS.view(columns, slice_rows, k, slices).permute(3, 1, 2, 0).reshape(slices * slice_rows, k * columns)
