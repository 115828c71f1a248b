"""A training step of the published base-8 cell against plain ways to compute it.

    python tests/benchmarks/recurrent_cell.py [--threads 2] [--vocabulary 50] [--hidden 200] [--repeats 15]
    python tests/benchmarks/recurrent_cell.py --device cuda

Two layers, batch 20, 35 steps of truncated backpropagation, float32: embeddings, cells, decoder, cross-entropy,
gradient clipping and SGD. With 50 tokens the cells are nearly everything; with 10,000 (`--vocabulary 10000`) the
softmax, the same for all, weighs as much as they do.

    fused     this package's layer; on a GPU the trainer's step, captured as one graph
    plain     the same cell node by node and step by step, two nn.Linear per leaf
    lstm      torch.nn.LSTM with the same number of parameters in its cells
    products  the matrix products of `fused` and nothing else: no implementation that needs them can be faster (CPU)
"""

import argparse
import statistics
from functools import partial

import torch
from measure import clock, machine, summary, trainer_step
from torch import nn
from torch.nn import functional as F

from nas_cluster.core.task import LanguageTask
from nas_cluster.nn.language_model import LanguageModel, choose_hidden_size
from nas_cluster.nn.language_options import LanguageModelOptions
from nas_cluster.spaces.recurrent_tree import RecurrentTree
from nas_cluster.spaces.recurrent_tree.child import TreeLayer

CELL = RecurrentTree.named()["nascell"]
COMBINATIONS = {"add": torch.add, "elem_mult": torch.mul}
ACTIVATIONS = {"identity": lambda x: x, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "relu": torch.relu}


class PlainLayer(nn.Module):
    """The cell as one would write it down."""

    def __init__(self, inputs, units):
        super().__init__()
        self.units = units
        self.of_x = nn.ModuleList(nn.Linear(inputs, units, bias=False) for _ in range(CELL.base))
        self.of_h = nn.ModuleList(nn.Linear(units, units, bias=False) for _ in range(CELL.base))

    def initial_state(self, batch):
        return tuple(self.of_x[0].weight.new_zeros(2, batch, self.units))

    def step(self, x, h, c):
        values = []
        for number, node in enumerate(CELL.nodes):
            if number < CELL.base:
                left, right = self.of_x[number](x), self.of_h[number](h)
            else:
                left, right = (values[child] for child in CELL.children(number))
            value = COMBINATIONS[node.combination](left, right)
            if number == CELL.cell_from:
                next_c = value
            value = ACTIVATIONS[node.activation](value)
            if number == CELL.cell_into:
                value = COMBINATIONS[CELL.inject.combination](value, c)
                value = ACTIVATIONS[CELL.inject.activation](value)
            values.append(value)
        return values[-1], next_c

    def forward(self, x_TBI, state):
        h, c = state
        outputs = []
        for x in x_TBI:
            h, c = self.step(x, h, c)
            outputs.append(h)
        return torch.stack(outputs), (h, c)


class LSTM(nn.LSTM):
    """torch's, as a layer of the model."""

    def __init__(self, inputs, units):
        super().__init__(inputs, units, bias=False)

    def initial_state(self, batch):
        return tuple(self.weight_hh_l0.new_zeros(2, 1, batch, self.hidden_size))


def train_step(options, make_layer, hidden, *, captured=False):
    """A function that trains a fresh model by one window."""
    torch.manual_seed(0)
    model_options = LanguageModelOptions(hidden_size=hidden)
    model = LanguageModel(model_options, LanguageTask(options.vocabulary), make_layer).to(options.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tokens_TB = torch.randint(options.vocabulary, (options.steps + 1, options.batch), device=options.device)
    state = model.initial_state(options.batch)

    def loss_of(tokens_TB):
        features_TBE, _ = model(tokens_TB[:-1], state)
        return F.cross_entropy(model.decoder(features_TBE).flatten(0, 1), tokens_TB[1:].flatten())

    def step():
        optimizer.zero_grad()
        loss_of(tokens_TB).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()

    if captured:
        of_the_trainer = trainer_step(model, loss_of, options.device, clip=5.0, rate=0.1)
        step = partial(of_the_trainer, tokens_TB)
    return step, sum(p.numel() for p in model.layers.parameters())


def products(options):
    """A function that does the matrix products of two layers, forward and backward."""
    units, columns, rows = options.hidden, CELL.base * options.hidden, options.steps * options.batch
    weight, x, leaf = torch.rand(units, columns) - 0.5, torch.rand(rows, units), torch.rand(rows, columns)
    h, grad, dx = torch.rand(options.batch, units), torch.empty(units, columns), torch.empty(rows, units)
    steps = leaf.view(options.steps, options.batch, columns)

    def run():
        for _ in range(2):
            torch.mm(x, weight, out=leaf)
            for step in steps:
                torch.addmm(step, h, weight, beta=0, out=step)
            for step in steps:
                torch.addmm(h, step, weight.t(), beta=0, out=dx[: options.batch])
            for _ in "xh":
                torch.mm(x.t(), leaf, out=grad)
            torch.mm(leaf, weight.t(), out=dx)

    return run


def check():
    """The two ways to compute the cell agree, outputs and gradients."""
    fused, plain = TreeLayer(CELL, 7, 9).double(), PlainLayer(7, 9).double()
    with torch.no_grad():
        for leaf in range(CELL.base):
            for linear, view in zip((plain.of_x[leaf], plain.of_h[leaf]), fused.leaf_weights(leaf), strict=True):
                linear.weight.copy_(view.t())
    x = torch.randn(6, 3, 7, dtype=torch.float64, requires_grad=True)
    state = tuple(torch.randn(2, 3, 9, dtype=torch.float64))
    (a, _), (b, _) = fused(x, state), plain(x, state)
    grads = [torch.autograd.grad(y.square().sum(), x)[0] for y in (a, b)]
    assert torch.allclose(a, b, atol=1e-12), "the cells differ"
    assert torch.allclose(*grads, atol=1e-12), "the gradients differ"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = {"threads": 2, "repeats": 15, "vocabulary": 50, "hidden": 200, "batch": 20, "steps": 35}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    check()
    plain, cells = train_step(options, PlainLayer, options.hidden)
    on_gpu = options.device == "cuda"
    fused, _ = train_step(options, partial(TreeLayer, CELL), options.hidden, captured=on_gpu)
    of_lstm = LanguageModelOptions(parameters=cells + 3, tied=True)  # of one token: two tables of 1·H are noise
    lstm, lstm_cells = train_step(options, LSTM, choose_hidden_size(of_lstm, 1, LSTM))
    runs = {"fused": fused, "plain": plain, "lstm": lstm}
    if not on_gpu:
        runs["products"] = products(options)
    seconds = {name: [] for name in runs}
    for run in runs.values():
        for _ in range(5 if on_gpu else 1):
            run()
    assert not on_gpu or fused() == "cuda_graph"
    for _ in range(options.repeats):
        for name, run in runs.items():
            started = clock(options.device)
            run()
            seconds[name].append(clock(options.device) - started)
    tokens = options.steps * options.batch
    print(f"{machine(options.device)}, torch {torch.__version__}, {options.threads} thread(s)")
    print(f"hidden size {options.hidden}, batch {options.batch}, {options.steps} steps, {options.vocabulary:,} tokens")
    print(f"cells: {cells:,} parameters; lstm: {lstm_cells:,}")
    for name, values in seconds.items():
        print(f"{name:9} tokens/s {summary([tokens / value for value in values])}")
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name in [*runs][1:]:
        print(f"fused against {name}: {medians[name] / medians['fused']:.2f}")
    if not on_gpu:
        print(f"the most that products allow against plain: {medians['plain'] / medians['products']:.2f}")


if __name__ == "__main__":
    main()
