"""One layer as a torch module, of one architecture or of all: it has the operations and the matrices it is given.

Shapes: N images, F filters. `inputs` is the wiring of the paper, `skips` that of the released code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from nas_cluster.nn.concatenate import concatenate
from nas_cluster.nn.convolutions import ConvNorm
from nas_cluster.nn.depthwise import DepthwiseConv2d
from nas_cluster.nn.joined import JoinedConvNorm
from nas_cluster.nn.pooling import SamePool
from nas_cluster.spaces.enas_macro.architecture import MacroLayer, Operation, Wiring

__all__ = ["LayerModule", "Place"]


@dataclass(frozen=True)
class Place:
    """A layer stands at a place: it has a number, from 1, and filters, and the network around it is built in some way.

    >>> third = Place(number=3, filters=8, wiring="skips", final=False, full_separable=False)
    >>> layer = LayerModule(operations=["conv_3x3"], maps=[0, 1], place=third)
    >>> layer.join is None, layer.norm is None
    (True, False)
    """

    number: int
    filters: int
    wiring: Wiring
    final: bool
    full_separable: bool


class LayerModule(nn.Module):
    """The layer reads maps by their numbers and returns its own map (N, F, H, W). By wiring it computes:

    inputs   1x1 convolution over the maps it reads, norm, ReLU, operation
    skips    operation on the map before, then, but for the first layer: the sum of the result and the maps it reads,
             norm; in the final network their concatenation, ReLU, 1x1 convolution, norm
    """

    def __init__(self, operations: Iterable[Operation], maps: Iterable[int], place: Place) -> None:
        super().__init__()
        number, filters = place.number, place.filters
        self._place = place
        self.join: JoinedConvNorm | None = None
        self.norm: nn.BatchNorm2d | None = None
        if place.wiring == "inputs":
            self.join = JoinedConvNorm(maps, filters, filters)
        elif number > 1 and place.final:
            self.join = JoinedConvNorm([*maps, number], filters, filters)
        elif number > 1:
            self.norm = nn.BatchNorm2d(filters)
        self.operations = nn.ModuleDict({word: _Branch(word, place) for word in operations})

    def forward(self, layer: MacroLayer, maps: Mapping[int, Tensor]) -> Tensor:
        """maps: at least those that the layer reads."""
        number, operation = self._place.number, self.operations[layer.operation]
        read = [maps[m] for m in layer.reads]
        if self._place.wiring == "inputs":
            assert self.join is not None
            y: Tensor = operation(F.relu(self.join(concatenate(read), layer.reads), inplace=True))
            return y
        y = operation(maps[number - 1])
        if self.join is not None:
            y = self.join(F.relu(concatenate([*read, y]), inplace=True), (*layer.reads, number))
        elif self.norm is not None:
            y = self.norm(_sum(y, read))
        return y


def _sum(y: Tensor, read: list[Tensor]) -> Tensor:
    if not read:
        return y
    total = y + read[0]
    for x in read[1:]:
        total.add_(x)
    return total


class _Branch(nn.Module):
    """A branch does an operation on F filters. Wired as skips, a 1x1 convolution of its own comes before it.

    The order of norm and ReLU is convolution, norm, ReLU, but in the released final network, whose convolutions begin
    with the ReLU: ReLU, 1x1 convolution, norm, ReLU, convolution, norm.
    """

    def __init__(self, operation: Operation, place: Place) -> None:
        super().__init__()
        filters, kernel = place.filters, int(operation[-1])
        skips = place.wiring == "skips"
        self._relu_first = skips and place.final
        self.squeeze = ConvNorm(filters, filters) if skips else None
        self._pool: SamePool | None = None
        self.spatial: nn.Module | None = None
        if "pool" in operation:
            self._pool = SamePool("avg" if operation.startswith("avg") else "max", kernel)
        elif operation.startswith("sep") and not place.full_separable:
            self.spatial = nn.Sequential(DepthwiseConv2d(filters, kernel), ConvNorm(filters, filters))
        else:
            self.spatial = ConvNorm(filters, filters, kernel)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, F, H, W) to the same shape."""
        if self.squeeze is not None:
            x = F.relu(self.squeeze(F.relu(x) if self._relu_first else x), inplace=True)
        if self.spatial is None:
            assert self._pool is not None
            pooled: Tensor = self._pool(x)
            return pooled
        y: Tensor = self.spatial(x)
        return y if self._relu_first else F.relu(y, inplace=True)
