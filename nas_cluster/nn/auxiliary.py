"""The auxiliary classifier, a second one in the middle of a network, whose loss helps to train the layers before it."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from nas_cluster.nn.convolutions import ConvNorm, SameConv2d
from nas_cluster.nn.pooling import global_average

__all__ = ["AuxiliaryHead"]

_POOL, _STRIDE = 5, 3


class AuxiliaryHead(nn.Module):
    """The head reads a rectified map (N, C, height, width) of exactly the size it was made for.

    It computes an average pool 5x5 with stride 3 (VALID; a smaller map is averaged whole), a 1x1 convolution to 128, a
    convolution to 768 with a kernel as large as the remaining map, a global average and a linear layer.

    padded: the convolution to 768 is SAME, so that a whole map is averaged, and not VALID, which leaves one pixel.
    """

    def __init__(
        self, channels: int, height: int, width: int, classes: int, *, padded: bool = False, bias: bool = True
    ) -> None:
        super().__init__()
        self._window = min(height, _POOL), min(width, _POOL)
        left = ((height - self._window[0]) // _STRIDE + 1, (width - self._window[1]) // _STRIDE + 1)
        self.narrow = ConvNorm(channels, 128)
        self.whole = SameConv2d(128, 768, left) if padded else nn.Conv2d(128, 768, left, bias=False)
        self.norm = nn.BatchNorm2d(768)
        self.classifier = nn.Linear(768, classes, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """The logits (N, classes)."""
        x = F.avg_pool2d(x, self._window, _STRIDE)
        x = F.relu(self.narrow(x), inplace=True)
        x = F.relu(self.norm(self.whole(x)), inplace=True)
        logits: Tensor = self.classifier(global_average(x))
        return logits
