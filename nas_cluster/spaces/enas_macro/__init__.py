"""ENAS's macro space: whole networks of convolutions, pools and skip connections over shared weights."""

from nas_cluster.spaces.enas_macro.space import ENASMacro

__all__ = ["ENASMacro"]
