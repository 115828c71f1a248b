"""ENAS's micro space: a normal and a reduction cell over shared weights."""

from nas_cluster.spaces.enas_micro.space import ENASMicro

__all__ = ["ENASMicro"]
