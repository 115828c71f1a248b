"""ENAS's recurrent cells: a directed acyclic graph of activations over shared weights."""

from nas_cluster.spaces.enas_recurrent.space import ENASRecurrent

__all__ = ["ENASRecurrent"]
