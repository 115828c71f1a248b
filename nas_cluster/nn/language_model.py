"""A language model around any recurrent layer: embeddings, L layers, decoder (Zaremba et al. 2014).

Shapes: T tokens of a window, B texts side by side, E features (the hidden size), V words.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas_cluster.core.errors import ConfigError
from nas_cluster.core.task import LanguageTask
from nas_cluster.nn.language_options import LanguageModelOptions

__all__ = ["Cell", "LanguageModel", "LayerFactory", "RecurrentLayer", "State", "choose_hidden_size", "unroll"]

State = tuple[Tensor, ...]
S = TypeVar("S", bound=State)
Cell = Callable[[Tensor, S], S]
"""One step of a recurrent layer takes what enters (B, I) and the state, whose first part is h, to the next state."""


class RecurrentLayer(Protocol):
    """A layer of the model is a module of I inputs and H units."""

    def initial_state(self, batch: int) -> State:
        """The state before the first token is made of tensors whose first dimension is B."""

    def __call__(self, x_TBI: Tensor, state: State, mask_BH: Tensor | None = None, /) -> tuple[Tensor, State]:
        """A layer gives its hidden states (T, B, H) and the state after the last. `mask_BH`, which is given only when
        the options ask for recurrent dropout, multiplies the hidden state that every step reads."""


LayerFactory = Callable[[int, int], nn.Module]
"""It makes a `RecurrentLayer` of an input size and a hidden size."""


def unroll(cell: Cell[S], x_TBI: Tensor, state: S, mask_BH: Tensor | None = None) -> tuple[Tensor, S]:
    """A cell, step by step, gives the hidden states (T, B, H) and the state after the last. `mask_BH` multiplies the
    hidden state that every step reads."""
    hidden: list[Tensor] = []
    for x_BI in x_TBI:
        read = state if mask_BH is None else (state[0] * mask_BH, *state[1:])
        state = cell(x_BI, read)  # type: ignore[arg-type]
        hidden.append(state[0])
    return torch.stack(hidden), state


class LanguageModel(nn.Module):
    """It maps tokens (T, B) and a state to features (T, B, E) and the next state; `decoder` maps those to logits (V).

    The state is the layers' states one after another. It carries its graph: the trainer detaches it between windows.
    All parameters are drawn uniformly from torch's global generator, whatever a layer had put there.
    Raises ConfigError when `options.parameters` is too small for any hidden size.
    """

    def __init__(self, options: LanguageModelOptions, task: LanguageTask, make_layer: LayerFactory) -> None:
        super().__init__()
        size = choose_hidden_size(options, task.vocabulary, make_layer)
        self._options = options
        self.embedding = nn.Embedding(task.vocabulary, size, _weight=torch.empty(task.vocabulary, size))
        self.layers = nn.ModuleList(make_layer(size, size) for _ in range(options.layers))
        with torch.device("meta"):  # its own initialisation would be drawn for nothing
            self.decoder = nn.Linear(size, task.vocabulary, bias=options.decoder_bias)
        weight = self.embedding.weight if options.tied else nn.Parameter(torch.empty(task.vocabulary, size))
        self.decoder.weight = weight
        if options.decoder_bias:
            self.decoder.bias = nn.Parameter(torch.empty(task.vocabulary))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -options.init_range, options.init_range)
        self._state_sizes = [len(layer.initial_state(1)) for layer in self._recurrent()]

    def initial_state(self, batch: int) -> State:
        """The state before the first token, that of every layer."""
        return tuple(part for layer in self._recurrent() for part in layer.initial_state(batch))

    def forward(self, tokens_TB: Tensor, state: State) -> tuple[Tensor, State]:
        """The features (T, B, E) of the tokens, and the state after the last."""
        x_TBE = self._dropped(self.embedding(tokens_TB))
        next_state: list[Tensor] = []
        for layer, size in zip(self._recurrent(), self._state_sizes, strict=True):
            own, state = state[:size], state[size:]
            mask = self._recurrent_mask(x_TBE)
            h_TBE, own = layer(x_TBE, own) if mask is None else layer(x_TBE, own, mask)
            next_state += own
            x_TBE = self._dropped(h_TBE)
        return x_TBE, tuple(next_state)

    def _recurrent(self) -> list[RecurrentLayer]:
        return list(self.layers)  # type: ignore[arg-type]

    def _dropped(self, x_TBE: Tensor) -> Tensor:
        if not self.training or not self._options.dropout:
            return x_TBE
        if self._options.variational:
            return x_TBE * F.dropout(torch.ones_like(x_TBE[:1]), self._options.dropout)
        return F.dropout(x_TBE, self._options.dropout)

    def _recurrent_mask(self, x_TBE: Tensor) -> Tensor | None:
        if not self.training or not self._options.recurrent_dropout:
            return None
        return F.dropout(torch.ones_like(x_TBE[0]), self._options.recurrent_dropout)


def choose_hidden_size(options: LanguageModelOptions, vocabulary: int, make_layer: LayerFactory) -> int:
    """The hidden size is what the options say, or the one whose total of parameters comes closest to theirs.

    Of two that are equally close it is the smaller. Raises ConfigError when one unit is already too many parameters.
    """
    if options.hidden_size is not None:
        return options.hidden_size
    wanted = options.parameters
    assert wanted is not None

    def total(size: int) -> int:
        with torch.device("meta"):
            layer = sum(p.numel() for p in make_layer(size, size).parameters())
        tables = 1 if options.tied else 2
        return options.layers * layer + tables * vocabulary * size + options.decoder_bias * vocabulary

    if total(1) > wanted:
        raise ConfigError(
            f"child.parameters: {wanted:,}, but a child of one unit has {total(1):,} with {vocabulary:,} tokens"
        )
    low, high = 1, 2  # total(low) <= wanted < total(high)
    while total(high) <= wanted:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if total(middle) <= wanted else (low, middle)
    return high if total(high) - wanted < wanted - total(low) else low
