"""Published architectures of this space."""

from __future__ import annotations

from nas_cluster.spaces.layerwise_cnn.architecture import CNNArchitecture, LayerwiseLayer

__all__ = ["published"]

_NAS_V1: list[tuple[int, int, int, tuple[int, ...]]] = [
    (3, 3, 36, (0,)),
    (3, 3, 48, (1,)),
    (3, 3, 36, (1, 2)),
    (5, 5, 36, (1, 2, 3)),
    (3, 7, 48, (3, 4)),
    (7, 7, 48, (2, 3, 4, 5)),
    (7, 7, 48, (2, 3, 4, 5, 6)),
    (7, 3, 36, (1, 6, 7)),
    (7, 1, 36, (1, 5, 6, 8)),
    (7, 7, 36, (1, 3, 4, 5, 6, 7, 8, 9)),
    (5, 7, 36, (1, 2, 5, 6, 7, 8, 9, 10)),
    (7, 7, 48, (1, 2, 3, 4, 6, 11)),
    (7, 5, 48, (1, 3, 6, 7, 8, 9, 10, 11, 12)),
    (7, 5, 48, (3, 7, 12, 13)),
    (7, 5, 48, (6, 7, 11, 12, 13, 14)),
]
"""Zoph & Le 2017, Figure 7: (filter height, filter width, filters, inputs) of 15 layers; 0 is the image.

The convolution weights sum to 4.2 million, the paper's figure.
"""


def published() -> dict[str, CNNArchitecture]:
    """`nas_v1`: the convolutional network of the paper's Figure 7."""
    layers = [
        LayerwiseLayer(filter_height=height, filter_width=width, filters=filters, inputs=inputs)
        for height, width, filters, inputs in _NAS_V1
    ]
    return {"nas_v1": CNNArchitecture(layers=tuple(layers))}
