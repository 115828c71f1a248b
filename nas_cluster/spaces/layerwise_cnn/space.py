"""The layer-wise CNN space of Zoph & Le 2017 (section 3.1, 3.3, 4.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Self

from pydantic import Field, field_validator

from nas_cluster.core.component import Options
from nas_cluster.core.decisions import Decision, DecisionSpec, Tokens
from nas_cluster.core.drawing import Drawing
from nas_cluster.core.task import ImageTask
from nas_cluster.spaces.base import Architecture, SearchSpace
from nas_cluster.spaces.layerwise_cnn.architecture import CNNArchitecture, LayerwiseChildOptions, LayerwiseLayer
from nas_cluster.spaces.layerwise_cnn.pictures import draw_network, summarise
from nas_cluster.spaces.layerwise_cnn.published import published

if TYPE_CHECKING:
    from torch import nn

__all__ = ["LayerwiseCNN"]

Values = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]


class Growth(Options):
    """Depth schedule: `by` more layers after every `every` children, up to `until` (Zoph & Le 2017, section 4.1)."""

    by: int = Field(2, ge=1)
    every: int = Field(1600, ge=1)
    until: int = Field(62, ge=1, le=62)


class LayerwiseCNN(SearchSpace[CNNArchitecture]):
    """Per layer: filter height and width, optional strides, number of filters, and which earlier layers it reads."""

    architecture_type: ClassVar[type[Architecture]] = CNNArchitecture

    layers: int = Field(6, ge=1, le=62)
    """Layers that are decided; the network has `block` times as many."""
    block: int = Field(1, ge=1)
    """Each decided layer stands for so many, fully connected: all of them read the block's inputs and all earlier
    ones of the block (3 in the paper's variant with pooling)."""
    pools: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Layers of the network after which maps are max-pooled (13 and 24 of 39 in the paper)."""
    filter_heights: Values = (1, 3, 5, 7)
    filter_widths: Values = (1, 3, 5, 7)
    filters: Values = (24, 36, 48, 64)
    strides: Values | None = None
    """Choices of a predicted stride, for height and width each; null: stride 1 everywhere."""
    skip_connections: bool = True
    """Anchor points choose each layer's inputs; otherwise each layer reads the one before it."""
    growth: Growth | None = None
    """The paper's: 6 layers, 2 more after every 1,600 children; null: the depth stays."""
    child: LayerwiseChildOptions = LayerwiseChildOptions()

    @field_validator("pools")
    @classmethod
    def _ascending(cls, pools: tuple[int, ...]) -> tuple[int, ...]:
        if list(pools) != sorted(set(pools)):
            raise ValueError("pools must be ascending and different")
        return pools

    @property
    def _pools_within(self) -> tuple[int, ...]:
        """The pooling layers that a network of this depth reaches."""
        return tuple(number for number in self.pools if number < self.layers * self.block)

    def _attributes(self) -> list[tuple[str, Values]]:
        strides = [] if self.strides is None else [("stride_height", self.strides), ("stride_width", self.strides)]
        return [
            ("filter_height", self.filter_heights),
            ("filter_width", self.filter_widths),
            *strides,
            ("filters", self.filters),
        ]

    def decisions(self) -> DecisionSpec:
        """Per layer the attributes in the paper's order, then the anchor point (spec: last in the layer)."""
        decisions: list[Decision] = []
        anchors: list[int] = []
        for layer in range(1, self.layers + 1):
            decisions += [
                Decision(f"layer_{layer}.{name}", "choice", len(values), name, labels=tuple(map(str, values)))
                for name, values in self._attributes()
            ]
            if self.skip_connections:
                names = tuple(f"layer {j}" for j in range(1, layer))
                skips = Decision(f"layer_{layer}.inputs", "skips", len(anchors), "inputs", tuple(anchors), names)
                anchors.append(len(decisions))
                decisions.append(skips)
        return DecisionSpec(decisions)

    def decode(self, tokens: Sequence[int]) -> CNNArchitecture:
        """Tokens (T) to an architecture; a layer that selects nothing reads the image (rule 1)."""
        remaining = iter(self.decisions().check(tokens))
        layers: list[LayerwiseLayer] = []
        for decided in range(1, self.layers + 1):
            values = {name: options[next(remaining)] for name, options in self._attributes()}
            if self.skip_connections:
                mask = next(remaining)
                selected = tuple(j for j in range(1, decided) if mask >> (j - 1) & 1) or (0,)
            else:
                selected = (decided - 1,)
            layers += [LayerwiseLayer(inputs=inputs, **values) for inputs in self._block_inputs(decided, selected)]
        return CNNArchitecture(layers=tuple(layers), pools=self._pools_within)

    def _block_inputs(self, decided: int, selected: Sequence[int]) -> list[tuple[int, ...]]:
        """What each layer of the block that stands for layer `decided` reads; `selected` are decided layers."""
        read = [j * self.block for j in selected]
        first = (decided - 1) * self.block + 1
        return [(*read, *range(first, first + place)) for place in range(self.block)]

    def encode(self, architecture: CNNArchitecture) -> Tokens:
        """Inverse of `decode`. Raises ValueError: the layer and the value that this space does not have."""
        if len(architecture.layers) != self.layers * self.block:
            raise ValueError(f"{len(architecture.layers)} layers, the space has {self.layers * self.block}")
        if architecture.pools != self._pools_within:
            raise ValueError(f"pools after layers {list(architecture.pools)}, the space has {list(self._pools_within)}")
        tokens = []
        for number in range(1, self.layers + 1):
            layer = self._decided(architecture, number)
            for name, options in self._attributes():
                value = getattr(layer, name)
                if value not in options:
                    raise ValueError(f"layer {number}: {name} {value} is not among {list(options)}")
                tokens.append(options.index(value))
            if self.strides is None and (layer.stride_height, layer.stride_width) != (1, 1):
                raise ValueError(f"layer {number}: has strides, the space has none")
            if self.skip_connections:
                if layer.inputs != (0,) and not all(1 <= j < number for j in layer.inputs):
                    raise ValueError(f"layer {number}: inputs {list(layer.inputs)} are not earlier layers")
                tokens.append(sum(1 << (j - 1) for j in layer.inputs if j > 0))
            elif layer.inputs != (number - 1,):
                raise ValueError(f"layer {number}: inputs {list(layer.inputs)}, without skips only {number - 1}")
        return tuple(tokens)

    def _decided(self, architecture: CNNArchitecture, number: int) -> LayerwiseLayer:
        """Decided layer `number` of an architecture, its inputs as decided layers. Raises ValueError: no such block."""
        first, *others = architecture.layers[(number - 1) * self.block : number * self.block]
        if any(source % self.block for source in first.inputs):
            raise ValueError(f"layer {number}: inputs {list(first.inputs)} are not outputs of blocks of {self.block}")
        layer = first.model_copy(update={"inputs": tuple(source // self.block for source in first.inputs)})
        for inside, inputs in zip(others, self._block_inputs(number, layer.inputs)[1:], strict=True):
            if inside != first.model_copy(update={"inputs": inputs}):
                raise ValueError(f"layer {number}: is not a fully connected block of {self.block} equal layers")
        return layer

    def at(self, number: int) -> Self:
        """The space of this depth at child `number`; it grows no further by itself."""
        if self.growth is None:
            return self
        grown = self.layers + self.growth.by * (number // self.growth.every)
        return self.model_copy(update={"layers": max(self.layers, min(grown, self.growth.until)), "growth": None})

    def build_child(self, architecture: CNNArchitecture, task: ImageTask) -> nn.Module:
        """The child network (child.py)."""
        from nas_cluster.spaces.layerwise_cnn.child import LayerwiseChild

        return LayerwiseChild(architecture, task, self.child)

    def summary(self, architecture: CNNArchitecture) -> str:
        """`3x3x36 5x5x48 ... · 6 connections`."""
        return summarise(architecture)

    def draw(self, architecture: CNNArchitecture) -> list[Drawing]:
        """Layers as boxes, reads as arrows, the classifier below."""
        return [draw_network(architecture)]

    @classmethod
    def named(cls) -> Mapping[str, CNNArchitecture]:
        """`nas_v1`: the convolutional network of the paper's Figure 7."""
        return published()
