"""A network as plain data. Maps are numbered: 0 is the stem's output, n that of layer n, from 1."""

from __future__ import annotations

from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from nas_cluster.core.component import Options
from nas_cluster.spaces.base import Architecture

__all__ = ["OPERATIONS", "MacroArchitecture", "MacroLayer", "Operation", "Wiring", "pool_places"]

Operation = Literal["conv_3x3", "sep_conv_3x3", "conv_5x5", "sep_conv_5x5", "avg_pool_3x3", "max_pool_3x3"]
Wiring = Literal["inputs", "skips"]

OPERATIONS: tuple[Operation, ...] = get_args(Operation)
"""The six operations of Pham et al. 2018, section 2.3, in the order of the released code's numbers."""


class MacroLayer(Options):
    """`reads`: maps, ascending; what they are for is the network's wiring."""

    operation: Operation
    reads: tuple[int, ...]


class MacroArchitecture(Architecture):
    """Layers in order.

    wiring: with `inputs` a layer computes its operation on the maps it reads, and maps that nobody reads go to the
    classifier (the paper); with `skips` it computes it on the map before, and the maps it reads join what
    comes out (the released code).
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
        """All maps that layer `number` (from 1) reads."""
        reads = self.layers[number - 1].reads
        return reads if self.wiring == "inputs" else (*reads, number - 1)

    @property
    def classified(self) -> tuple[int, ...]:
        """Maps that the classifier reads: those that no layer does, the last one among them."""
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
    """Layers after which every map is halved: after one and two thirds of the network."""
    third = layers // 3
    return (third, 2 * third) if third else ()
