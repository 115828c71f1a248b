"""The auxiliary classifier of NASNet and ENAS, and how a trainer asks any child for its logits while training."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from nas_cluster.nn.convolutions import ConvNorm

__all__ = ["AuxiliaryHead", "training_logits"]

_POOL, _STRIDE = 5, 3


class AuxiliaryHead(nn.Module):
    """Average pool 5x5 stride 3 (VALID), 1x1 convolution to 128, a convolution of the whole remaining map to 768,
    linear. Reads a rectified map (N, C, height, width) of exactly the size it was made for.

    Maps smaller than the pool are averaged whole.
    """

    def __init__(self, channels: int, height: int, width: int, classes: int) -> None:
        super().__init__()
        self._window = min(height, _POOL), min(width, _POOL)
        left = ((height - self._window[0]) // _STRIDE + 1, (width - self._window[1]) // _STRIDE + 1)
        self.narrow = ConvNorm(channels, 128)
        self.whole = nn.Conv2d(128, 768, left, bias=False)
        self.norm = nn.BatchNorm2d(768)
        self.classifier = nn.Linear(768, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes)."""
        x = F.avg_pool2d(x, self._window, _STRIDE)
        x = F.relu(self.narrow(x), inplace=True)
        x = F.relu(self.norm(self.whole(x)), inplace=True)
        logits: Tensor = self.classifier(x.flatten(1))
        return logits


def training_logits(child: nn.Module, images: Tensor) -> tuple[Tensor, Tensor | None]:
    """Logits of a child and, where it has an auxiliary classifier, that one's too.

    A child of any space may have a method `training_logits(images) -> (logits, auxiliary logits or None)`; without one
    it has no auxiliary classifier.
    """
    method = getattr(child, "training_logits", None)
    if method is None:
        return child(images), None
    main, auxiliary = method(images)
    return main, auxiliary
