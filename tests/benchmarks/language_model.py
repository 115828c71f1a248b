"""Training of language models against the usual loop, one thread.

    python tests/benchmarks/language_model.py step|softmax [--vocabulary 10000] [--repeats 15]

step: one training step of a one-layer LSTM model (H=200, B=20, T=35) by the trainer, against a loop that calls
F.cross_entropy on the decoder's output, clip_grad_norm_, torch.optim.SGD and .item(). softmax: decoder and loss alone,
forward and backward, at several vocabularies; it says from which one the fused loss is the faster (FUSED_FROM).
"""

import argparse
import statistics
import time

import numpy as np
import torch
from measure import machine, summary
from torch import nn
from torch.nn import functional as F

from nas_cluster.datasets import TextArrays
from nas_cluster.training.language_model import _Training
from nas_cluster.training.language_settings import LanguageSettings
from nas_cluster.training.softmax_loss import FUSED_FROM, fused_softmax_loss
from nas_cluster.training.text import TextStore

HIDDEN, COLUMNS, LENGTH = 200, 20, 35
WARM_UP = 2


class LSTMModel(nn.Module):
    def __init__(self, vocabulary):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, HIDDEN)
        self.lstm = nn.LSTM(HIDDEN, HIDDEN)
        self.decoder = nn.Linear(HIDDEN, vocabulary)

    def initial_state(self, columns):
        return (torch.zeros(1, columns, HIDDEN), torch.zeros(1, columns, HIDDEN))

    def forward(self, tokens_TB, state):
        return self.lstm(self.embedding(tokens_TB), state)


def interleaved(functions, repeats):
    """CPU milliseconds of each function, one after the other in every repeat: other processes disturb them least."""
    times = {name: [] for name in functions}
    for repeat in range(repeats + WARM_UP):
        for name, function in functions.items():
            started = time.process_time()
            function()
            if repeat >= WARM_UP:
                times[name].append(1000 * (time.process_time() - started))
    return times


def ratio(times):
    return statistics.median(times["usual"]) / statistics.median(times["ours"])


def step(vocabulary, repeats):
    settings = LanguageSettings(batch_size=COLUMNS, sequence_length=LENGTH, learning_rate=1.0)
    windows = repeats + WARM_UP
    ids = np.random.default_rng(0).integers(0, vocabulary, COLUMNS * (LENGTH * windows + 1)).astype(np.int32)
    store = TextStore(TextArrays(ids, ids[:100], ids[:100], range(vocabulary)), settings, "cpu")
    torch.manual_seed(0)
    model = LSTMModel(vocabulary)
    training = _Training(LSTMModel(vocabulary), store, settings)
    training.start_epoch()
    optimizer = torch.optim.SGD(model.parameters(), lr=settings.learning_rate)
    state, total = model.initial_state(COLUMNS), 0.0
    numbers = {name: iter(range(windows)) for name in ("usual", "ours")}

    def usual():
        nonlocal state, total
        window = store.window(next(numbers["usual"]))
        features, state = model(window[:-1], tuple(part.detach() for part in state))
        loss = F.cross_entropy(model.decoder(features).view(-1, vocabulary), window[1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), settings.gradient_clip)
        optimizer.step()
        total += loss.item()

    def ours():
        training.step(store.window(next(numbers["ours"])), settings.learning_rate)

    times = interleaved({"usual": usual, "ours": ours}, repeats)
    print(f"one step, LSTM, V={vocabulary:,}, H={HIDDEN}, B={COLUMNS}, T={LENGTH}, CPU ms:")
    print(f"  the trainer    {summary(times['ours'])}")
    print(f"  the usual loop {summary(times['usual'])}")
    print(f"  ratio {ratio(times):.2f}; {COLUMNS * LENGTH / statistics.median(times['ours']):,.1f} thousand tokens/s")


def softmax(repeats):
    print(
        f"decoder and loss, forward and backward, H={HIDDEN}, {COLUMNS * LENGTH} tokens, CPU ms "
        f"(the trainer uses the fused loss from {FUSED_FROM}):"
    )
    for vocabulary in (50, 300, 1000, 3000, 10_000, 30_000):
        features = torch.randn(COLUMNS * LENGTH, HIDDEN, requires_grad=True)
        weight = (0.05 * torch.randn(vocabulary, HIDDEN)).requires_grad_()
        bias = torch.zeros(vocabulary, requires_grad=True)
        targets = torch.randint(vocabulary, (COLUMNS * LENGTH,))
        leaves = (features, weight, bias)

        def usual(leaves=leaves, targets=targets):
            F.cross_entropy(F.linear(*leaves), targets).backward()
            for leaf in leaves:
                leaf.grad = None

        def ours(leaves=leaves, targets=targets):
            fused_softmax_loss(*leaves, targets).backward()
            for leaf in leaves:
                leaf.grad = None

        times = interleaved({"usual": usual, "ours": ours}, repeats)
        print(
            f"  V={vocabulary:>6,}  fused {summary(times['ours'])}  plain {summary(times['usual'])}  "
            f"ratio {ratio(times):.2f}"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["step", "softmax"])
    parser.add_argument("--vocabulary", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=15)
    a = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{machine()}, torch {torch.__version__}, one thread")
    if a.what == "step":
        step(a.vocabulary, a.repeats)
    else:
        softmax(a.repeats)


if __name__ == "__main__":
    main()
