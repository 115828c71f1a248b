"""A network as plain data, and how a child is built from it.

Maps are numbered: 0 is the stem's output, n that of layer n, from 1.
"""

from __future__ import annotations

from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from nas_cluster.core.component import Options
from nas_cluster.spaces.base import Architecture

__all__ = [
    "OPERATIONS",
    "MacroArchitecture",
    "MacroChildOptions",
    "MacroLayer",
    "Operation",
    "Wiring",
    "pool_places",
]

Operation = Literal["conv_3x3", "sep_conv_3x3", "conv_5x5", "sep_conv_5x5", "avg_pool_3x3", "max_pool_3x3"]
Wiring = Literal["inputs", "skips"]

OPERATIONS: tuple[Operation, ...] = get_args(Operation)
"""The six operations of Pham et al. 2018, section 2.3, in the order of the released code's numbers."""


class MacroLayer(Options):
    """A layer has an operation and reads maps, which ascend; the network's wiring says what they are for."""

    operation: Operation
    reads: tuple[int, ...]


class MacroArchitecture(Architecture):
    """Layers stand in order.

    wiring: with `inputs` a layer computes its operation on the maps it reads, and the classifier reads the maps that
    no layer does (the paper); with `skips` a layer computes it on the map before, and the maps it reads join what
    comes out (the released code).

    >>> layer = MacroLayer(operation="conv_3x3", reads=(0,))
    >>> both_read_the_stem = MacroArchitecture(layers=(layer, layer))
    >>> both_read_the_stem.sources(2), both_read_the_stem.classified, both_read_the_stem.last_readers
    ((0,), (1, 2), (2, 3, 3))
    """

    layers: tuple[MacroLayer, ...] = Field(min_length=1)
    wiring: Wiring = "inputs"

    @model_validator(mode="after")
    def _read_backwards(self) -> Self:
        last = 1 if self.wiring == "inputs" else 2
        for number, layer in enumerate(self.layers, start=1):
            allowed = range(number - last + 1)
            if list(layer.reads) != sorted(set(layer.reads) & set(allowed)):
                raise ValueError(
                    f"layer {number}: reads {list(layer.reads)}; distinct maps of {list(allowed)}, ascending"
                )
            if self.wiring == "inputs" and not layer.reads:
                raise ValueError(f"layer {number}: reads nothing; the stem is map 0")
        return self

    def sources(self, number: int) -> tuple[int, ...]:
        """All maps that layer `number` reads."""
        reads = self.layers[number - 1].reads
        return reads if self.wiring == "inputs" else (*reads, number - 1)

    @property
    def classified(self) -> tuple[int, ...]:
        """The maps that the classifier reads: those that no layer does, the last one among them."""
        read = {m for number in range(1, len(self.layers) + 1) for m in self.sources(number)}
        return tuple(m for m in range(1, len(self.layers) + 1) if m not in read)

    @property
    def last_readers(self) -> tuple[int, ...]:
        """Per map the last layer that reads it; one more than there are layers for the classifier."""
        last = [0] * (len(self.layers) + 1)
        for number in range(1, len(self.layers) + 1):
            for m in self.sources(number):
                last[m] = number
        for m in self.classified:
            last[m] = len(self.layers) + 1
        return tuple(last)


def pool_places(layers: int) -> tuple[int, ...]:
    """The layers after which every map is halved: after one and two thirds of the network.

    >>> pool_places(12)
    (4, 8)
    """
    third = layers // 3
    return (third, 2 * third) if third else ()


class MacroChildOptions(Options):
    """How a child is built from an architecture."""

    form: Literal["search", "final"] = "search"
    """search: all layers have F filters; final: twice as many after each halving, and, wired as skips, maps are
    concatenated before a 1x1 convolution instead of added."""
    filters: int = Field(36, ge=2)
    """F of the stem and the first layers."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of the classifier's inputs that is dropped (0.1 in the released search, 0.5 for the final network)."""
    full_separable: bool = False
    """Build separable convolutions as full ones, as the released code does by mistake in its final network."""

    @model_validator(mode="after")
    def _full_in_final(self) -> Self:
        if self.full_separable and self.form == "search":
            raise ValueError("full_separable: the released code does it with form final only")
        return self
