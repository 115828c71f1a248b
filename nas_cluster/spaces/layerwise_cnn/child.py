"""A child of the layer-wise CNN space as a torch module.

The paper's three rules (section 3.3): a layer without inputs reads the image; outputs that nobody reads go to the
classifier; inputs of different sizes are padded with zeros to the largest before they are concatenated. Pooling halves
every map that is read later, so that maps of both sides of it fit without padding.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas_cluster.core.task import ImageTask
from nas_cluster.nn.convolutions import SameConv2d
from nas_cluster.spaces.layerwise_cnn.architecture import CNNArchitecture, LayerwiseChildOptions, LayerwiseLayer

__all__ = ["LayerwiseChild"]


class LayerwiseChild(nn.Module):
    """The child maps images (N, channels, height, width) to logits (N, classes)."""

    def __init__(self, architecture: CNNArchitecture, task: ImageTask, options: LayerwiseChildOptions) -> None:
        super().__init__()
        self._inputs = [layer.inputs for layer in architecture.layers]
        self._unread = architecture.unread
        self._centre = options.padding == "centre"
        self._halved = {
            number: {j for inputs in self._inputs[number:] for j in inputs if j <= number}
            for number in architecture.pools
        }
        channels = [task.channels]
        self.layers = nn.ModuleList()
        for layer in architecture.layers:
            filters = layer.filters + options.extra_filters
            self.layers.append(_Layer(sum(channels[j] for j in layer.inputs), filters, layer))
            channels.append(filters)
        self.classifier = nn.Linear(sum(channels[j] for j in self._unread), task.classes)

    def forward(self, images: Tensor) -> Tensor:
        """The logits (N, classes)."""
        outputs = [images]
        for number, (layer, inputs) in enumerate(zip(self.layers, self._inputs, strict=True), start=1):
            outputs.append(layer(self._concatenate([outputs[j] for j in inputs])))
            for j in self._halved.get(number, ()):
                outputs[j] = F.max_pool2d(outputs[j], 2, ceil_mode=True)
        pooled = [outputs[j].mean(dim=(2, 3)) for j in self._unread]
        logits: Tensor = self.classifier(torch.cat(pooled, 1))
        return logits

    def _concatenate(self, maps: Sequence[Tensor]) -> Tensor:
        """The maps, padded to the largest height and width and concatenated along channels (rule 3)."""
        if len(maps) == 1:
            return maps[0]
        height = max(x.shape[2] for x in maps)
        width = max(x.shape[3] for x in maps)
        return torch.cat([self._pad(x, height - x.shape[2], width - x.shape[3]) for x in maps], 1)

    def _pad(self, x: Tensor, height: int, width: int) -> Tensor:
        if height == width == 0:
            return x
        top, left = (height // 2, width // 2) if self._centre else (0, 0)
        return F.pad(x, (left, width - left, top, height - top))


class _Layer(nn.Module):
    """A convolution with TensorFlow's SAME padding (the output has size ceil(n / stride)), batch norm, ReLU."""

    def __init__(self, channels: int, filters: int, layer: LayerwiseLayer) -> None:
        super().__init__()
        kernel, stride = (layer.filter_height, layer.filter_width), (layer.stride_height, layer.stride_width)
        self.conv = SameConv2d(channels, filters, kernel, stride)
        self.norm = nn.BatchNorm2d(filters)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)), inplace=True)
