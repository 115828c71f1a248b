"""The words that spaces choose from, and how pictures and tables show them.

Words of operations on images are built alike: a kind and the size of a kernel, as in `sep_conv_5x5`.
"""

from __future__ import annotations

from typing import TypeVar

from nas_cluster.core.drawing import NodeStyle

__all__ = ["label", "named_once", "shorthand", "style"]

W = TypeVar("W", bound=tuple[str, ...])


def named_once(words: W) -> W:
    """The words themselves. Raises ValueError when one of them is there twice.

    >>> named_once(("tanh", "relu"))
    ('tanh', 'relu')
    """
    if len(set(words)) < len(words):
        raise ValueError(f"each may be named once, got {list(words)}")
    return words


def label(operation: str) -> str:
    """What stands in an operation's box.

    >>> label("sep_conv_5x5"), label("avg_pool_3x3"), label("conv_1x7_7x1")
    ('sep 5x5', 'avg 3x3', 'conv 1x7 7x1')
    """
    return operation.replace("_conv", "").replace("_pool", "").replace("_", " ")


def shorthand(operation: str) -> str:
    """What stands for an operation in a line of text: its first letter and the side of its kernel, both if they differ.

    >>> shorthand("sep_conv_5x5"), shorthand("conv_1x7_7x1"), shorthand("identity")
    ('s5', 'c17', 'id')
    """
    if operation == "identity":
        return "id"
    height, _, width = label(operation).split()[1].partition("x")
    return operation[0] + (height if height == width else height + width)


def style(operation: str) -> NodeStyle:
    """By which colour a reader tells the operation apart.

    >>> style("identity"), style("max_pool_3x3"), style("sep_conv_5x5")
    ('identity', 'pool', 'conv')
    """
    if operation == "identity":
        return "identity"
    return "pool" if "pool" in operation else "conv"
