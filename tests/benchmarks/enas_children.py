"""Steps of ENAS's shared networks against plain ways to compute them.

    python tests/benchmarks/enas_children.py [--threads 1] [--repeats 9] [--hidden 200] [--batch 64] [--filters 20]

Forward and backward pass, float32, interleaved; processor time, so that other work on the machine counts less.

    cell    a window of 35 steps of the published cell: `scan` is this package's layer, `plain` the same cell node by
            node and step by step with two matrices per edge and autograd
    switch  `shared` computes another random architecture in every step, `alone` is a child of its own for each of them,
            built beforehand: what choosing costs
"""

import argparse
import statistics
import time

import numpy as np
import torch
from measure import machine, summary
from torch import nn

from nas_cluster.core.task import ImageTask, LanguageTask
from nas_cluster.spaces.enas_macro import ENASMacro
from nas_cluster.spaces.enas_micro import ENASMicro
from nas_cluster.spaces.enas_recurrent import ENASRecurrent
from nas_cluster.spaces.enas_recurrent.cell import DagLayer, edges_of

CELL = ENASRecurrent.named()["published"]
FUNCTIONS = {"tanh": torch.tanh, "relu": torch.relu}
STEPS = 35


class PlainCell(nn.Module):
    """The cell as one would write it down."""

    def __init__(self, units):
        super().__init__()
        self.of_x = nn.ModuleList(nn.Linear(units, units, bias=False) for _ in range(2))
        self.gates = nn.ModuleList(nn.Linear(units, units, bias=False) for _ in CELL.nodes)
        self.functions = nn.ModuleList(nn.Linear(units, units, bias=False) for _ in CELL.nodes)

    def forward(self, x_TBD, h):
        outputs = []
        for x in x_TBD:
            values = []
            for node, gate, function in zip(CELL.nodes, self.gates, self.functions, strict=True):
                read = h if node.previous is None else values[node.previous]
                c, f = gate(read), function(read)
                if node.previous is None:
                    c, f = c + self.of_x[0](x), f + self.of_x[1](x)
                c = torch.sigmoid(c)
                values.append(c * FUNCTIONS[node.activation](f) + (1 - c) * read)
            h = torch.stack([values[n] for n in CELL.averaged]).mean(0)
            outputs.append(h)
        return torch.stack(outputs)


def timed(functions, repeats):
    """Milliseconds of every function, `repeats` times, in turn."""
    found = {name: [] for name in functions}
    for _ in range(repeats):
        for name, run in functions.items():
            start = time.thread_time()
            run()
            found[name].append(1000 * (time.thread_time() - start))
    return found


def report(title, found, one, other):
    for name, values in found.items():
        print(f"{title:12} {name:8} {summary(values)} ms")
    ratio = statistics.median(found[one]) / statistics.median(found[other])
    print(f"{title:12} {one} / {other} = {ratio:.2f}", flush=True)


def cell(options):
    x = torch.randn(STEPS, options.batch, options.hidden, requires_grad=True)
    h = torch.zeros(options.batch, options.hidden)
    layer = DagLayer(edges_of(CELL, per_activation=False), False, False, options.hidden, options.hidden)
    layer.choose(CELL)
    plain = PlainCell(options.hidden)

    def step(module, outputs):
        module.zero_grad()
        outputs().sum().backward()

    functions = {
        "scan": lambda: step(layer, lambda: layer(x, (h,))[0]),
        "plain": lambda: step(plain, lambda: plain(x, h)),
    }
    timed(functions, 2)
    report(f"cell {options.hidden}", timed(functions, options.repeats), "plain", "scan")


def switch(options, space, task, inputs):
    rng = np.random.default_rng(0)
    architectures = [space.decode(space.random(rng)) for _ in range(options.repeats)]
    shared = space.build_shared(task)
    children = [space.build_child(architecture, task) for architecture in architectures]

    def step(module, *chosen):
        module.zero_grad()
        out = module(*inputs(module), *chosen)
        (out[0] if isinstance(out, tuple) else out).sum().backward()

    found = {"shared": [], "alone": []}
    for number, (architecture, child) in enumerate(zip(architectures, children, strict=True)):
        for _ in range(2):
            pair = {"shared": lambda a=architecture: step(shared, a), "alone": lambda c=child: step(c)}
            for name, values in timed(pair, 1).items():
                found[name] += values if number else []
    report(space.kind, found, "shared", "alone")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("threads", 1), ("repeats", 9), ("hidden", 200), ("batch", 64), ("filters", 20)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    print(machine())
    cell(options)
    images, task = torch.randn(16, 3, 32, 32), ImageTask(32, 32, 3, 10)
    switch(options, ENASMicro(child={"filters": options.filters}), task, lambda module: (images,))
    switch(options, ENASMacro(child={"filters": options.filters}), task, lambda module: (images,))
    tokens_TB = torch.randint(1000, (STEPS, options.batch))
    space = ENASRecurrent(child={"hidden_size": options.hidden})
    words = LanguageTask(1000)
    switch(options, space, words, lambda module: (tokens_TB, module.initial_state(options.batch)))


if __name__ == "__main__":
    main()
