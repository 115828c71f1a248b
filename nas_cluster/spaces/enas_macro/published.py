"""Published networks of this space: per layer the operation's number and one bit per map that may be joined to it."""

from __future__ import annotations

from nas_cluster.spaces.enas_macro.architecture import OPERATIONS, MacroArchitecture, MacroLayer

__all__ = ["published"]

_PUBLISHED = (
    "0 / 3 0 / 0 10 / 2 001 / 2 0000 / 3 11010 / 2 000001 / 2 0110111 / 1 01110101 / 0 000000000 / 2 0000010000 / "
    "0 10011000011 / 2 010000010110 / 1 0010001110101 / 0 11010100000100 / 2 001000000010101 / 2 0100010011110010 / "
    "2 00001010100101001 / 3 011010000010101000 / 3 0110000000001100001 / 0 10010110001000001100 / "
    "3 010110010110110100100 / 0 1010100000000101001000 / 0 11000111010001010011000"
)
"""Pham et al. 2018, the released code's `macro_final`: 24 layers, wired as skips; bit j is map j."""


def published() -> dict[str, MacroArchitecture]:
    """`published`: the 24 layers of the released code's final network."""
    layers = []
    for row in _PUBLISHED.split("/"):
        number, _, bits = row.strip().partition(" ")
        reads = tuple(m for m, bit in enumerate(bits) if bit == "1")
        layers.append(MacroLayer(operation=OPERATIONS[int(number)], reads=reads))
    return {"published": MacroArchitecture(layers=tuple(layers), wiring="skips")}
