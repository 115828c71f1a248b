"""NAS-RL's recurrent cells: a tree of combinations and activations over the input and the last hidden state."""

from nas_cluster.spaces.recurrent_tree.space import RecurrentTree

__all__ = ["RecurrentTree"]
