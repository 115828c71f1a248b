"""A tiny search space for text, whose children keep the contract of language models in the plainest way."""

from nas_cluster.core.decisions import Decision, DecisionSpec
from nas_cluster.core.task import LanguageTask
from nas_cluster.spaces import Architecture, SearchSpace

SIZES = (8, 16)


class Sizes(Architecture):
    hidden_size: int


class TextSpace(SearchSpace[Sizes]):
    architecture_type = Sizes
    understands = (LanguageTask,)

    def decisions(self):
        return DecisionSpec([Decision("hidden_size", "choice", len(SIZES), "hidden_size")])

    def decode(self, tokens):
        return Sizes(hidden_size=SIZES[self.decisions().check(tokens)[0]])

    def encode(self, architecture):
        return (SIZES.index(architecture.hidden_size),)

    def build_child(self, architecture, task):
        return lstm_child(task.vocabulary, architecture.hidden_size)


def lstm_child(vocabulary, hidden_size, dropout=0.0):
    """Embedding, one LSTM layer, decoder."""
    import torch
    from torch import nn

    class LSTMChild(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(vocabulary, hidden_size)
            self.lstm = nn.LSTM(hidden_size, hidden_size)
            self.dropout = nn.Dropout(dropout)
            self.decoder = nn.Linear(hidden_size, vocabulary)

        def initial_state(self, columns):
            zeros = self.decoder.weight.new_zeros(1, columns, hidden_size)
            return (zeros, torch.zeros_like(zeros))

        def forward(self, tokens_TB, state):
            features_TBE, state = self.lstm(self.dropout(self.embedding(tokens_TB)), state)
            return self.dropout(features_TBE), state

    return LSTMChild()
