"""A child of the recurrent-tree space: the language model with the cell in every layer."""

from __future__ import annotations

from functools import partial

from torch import nn

from nas_cluster.core.task import LanguageTask
from nas_cluster.nn.language_model import LanguageModel
from nas_cluster.nn.language_options import LanguageModelOptions
from nas_cluster.spaces.recurrent_tree.cell import TreeLayer
from nas_cluster.spaces.recurrent_tree.space import TreeArchitecture

__all__ = ["tree_child"]


def tree_child(architecture: TreeArchitecture, options: LanguageModelOptions, task: LanguageTask) -> nn.Module:
    """Tokens (T, B) to features (T, B, E), state (h, c) of every layer."""
    return LanguageModel(options, task, partial(TreeLayer, architecture))
