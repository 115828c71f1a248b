"""SMASH's networks as reads from and writes to memory banks."""

from nas_cluster.spaces.memory_bank.space import MemoryBank

__all__ = ["MemoryBank"]
