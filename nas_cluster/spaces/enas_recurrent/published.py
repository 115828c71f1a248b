"""Published cells of this space. Activations are numbers: 0 tanh, 1 relu, and then as each says."""

__all__ = ["ENAS_LM", "PUBLISHED", "PUBLISHED_SCRIPT"]

PUBLISHED = (0, *(0, 0), *(1, 1), *(1, 0), *(2, 0), *(2, 0), *(2, 1), *(4, 1), *(7, 1), *(8, 1), *(8, 1), *(8, 1))
"""Pham et al. 2018: the cell found on Penn Treebank, in the numbering of ENAS-pytorch's `dag.json`: the first node's
activation, then (previous, activation) of eleven nodes."""

_PAIRS = ((0, 0), (1, 1), (2, 1), (2, 0), (2, 0), (5, 1), (1, 0), (6, 1), (8, 1), (8, 1), (8, 1))
PUBLISHED_SCRIPT = (0, *(number for pair in _PAIRS for number in pair))
"""The same cell in the numbering of the released script."""

ENAS_LM = (*(0, 2), *(1, 0), *(2, 1), *(2, 2), *(4, 0), *(5, 0), *(3, 2), *(6, 2))
"""The cell of `enas_lm`, the authors' later code: eight nodes after a first one that is a tanh; 2 is sigmoid."""
