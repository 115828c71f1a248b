"""A network as plain data, and how a child is built from it. Layers are numbered from 1; 0 is the image."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from nas_cluster.core.component import Options
from nas_cluster.spaces.base import Architecture

__all__ = ["CNNArchitecture", "LayerwiseChildOptions", "LayerwiseLayer"]


class LayerwiseLayer(Options):
    """A layer computes convolution, batch norm and ReLU. It reads `inputs`, which ascend."""

    filter_height: int = Field(ge=1)
    filter_width: int = Field(ge=1)
    filters: int = Field(ge=1)
    inputs: tuple[int, ...] = Field(min_length=1)
    stride_height: int = Field(1, ge=1)
    stride_width: int = Field(1, ge=1)


class CNNArchitecture(Architecture):
    """Layers stand in order. The classifier reads the outputs that no layer reads (rule 2), so always the last layer's.

    pools: after these layers, which ascend, 2x2 max pooling halves every map that is still read.

    >>> layer = LayerwiseLayer(filter_height=3, filter_width=3, filters=8, inputs=(0,))
    >>> both_read_the_image = CNNArchitecture(layers=(layer, layer))
    >>> both_read_the_image.unread
    (1, 2)
    """

    layers: tuple[LayerwiseLayer, ...] = Field(min_length=1)
    pools: tuple[int, ...] = ()

    @property
    def unread(self) -> tuple[int, ...]:
        """The layers that the classifier reads."""
        read = {source for layer in self.layers for source in layer.inputs}
        return tuple(number for number in range(1, len(self.layers) + 1) if number not in read)


class LayerwiseChildOptions(Options):
    """How a child is built from an architecture."""

    padding: Literal["bottom_right", "centre"] = "bottom_right"
    """Where zeros go when smaller inputs are padded to the size of the largest (the paper does not say)."""
    extra_filters: int = Field(0, ge=0)
    """Added to every layer's filters: the paper's "more filters" (40) for the final network."""
