"""Published cells of this space, and the LSTM written in it.

A row is (combination, activation): of the nodes in index order, then of the cell inject. The two indices are the node
that writes c_t and the node that c_{t-1} is injected into.
"""

__all__ = ["FIGURE_5", "LSTM", "NASCELL", "Rows"]

Rows = tuple[tuple[tuple[str, str], ...], tuple[str, str], tuple[int, int]]

FIGURE_5: Rows = (
    (("add", "tanh"), ("elem_mult", "relu"), ("elem_mult", "sigmoid")),
    ("add", "relu"),
    (1, 0),
)
"""Zoph & Le 2017, Figure 5: the worked example of base 2."""

NASCELL: Rows = (
    (
        *(("add", "sigmoid"), ("add", "relu"), ("add", "sigmoid"), ("elem_mult", "relu")),
        *(("add", "tanh"), ("add", "sigmoid"), ("add", "tanh"), ("add", "sigmoid")),
        *(("elem_mult", "tanh"), ("add", "tanh"), ("elem_mult", "tanh"), ("add", "sigmoid")),
        *(("elem_mult", "identity"), ("add", "tanh")),
        ("elem_mult", "tanh"),
    ),
    ("add", "tanh"),
    (12, 8),
)
"""The paper's best cell of base 8, as its authors released it (TensorFlow's `NASCell`, without bias)."""

LSTM: Rows = (
    (
        *(("add", "identity"), ("add", "identity"), ("add", "sigmoid"), ("add", "tanh")),
        *(("add", "identity"),) * 4,
        *(("add", "sigmoid"), ("elem_mult", "identity"), ("add", "identity"), ("add", "identity")),
        *(("add", "tanh"), ("add", "sigmoid")),
        ("elem_mult", "identity"),
    ),
    ("elem_mult", "identity"),
    (12, 8),
)
"""The LSTM without bias. Node 8 is the forget gate, the sigmoid of leaves 0 and 1 together, times c_{t-1}; node 9 is
the input gate (leaf 2) times the new content (leaf 3); their sum, node 12, is c_t; node 13, the sigmoid of leaves 4 to
7 together, is the output gate. A sum of linear leaves is one linear map, so this is the LSTM and nothing more.
"""
