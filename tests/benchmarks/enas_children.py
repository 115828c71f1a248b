"""Steps of ENAS's shared networks against plain ways to compute them.

    python tests/benchmarks/enas_children.py [--threads 1] [--repeats 9] [--hidden 200] [--batch 64] [--filters 20]
    python tests/benchmarks/enas_children.py --device cuda --images 128

Float32, interleaved; processor time, so that other work on the machine counts less. On a GPU wall time, of eager steps:
a new architecture every time leaves no graph to capture.

    cell    forward and backward pass of a window of 35 steps of the published cell: `scan` is this package's layer,
            `plain` the same cell node by node and step by step with two matrices per edge and autograd
    switch  a training step: `shared` computes another random architecture in every step, `alone` is a child of its own
            for each of them, built beforehand, with torch's clipping and SGD: what choosing costs
"""

import argparse
import statistics
import time
from functools import partial

import numpy as np
import torch
from measure import clock, machine, summary
from torch import nn

from nas_cluster.core.task import ImageTask, LanguageTask
from nas_cluster.spaces.enas_macro import ENASMacro
from nas_cluster.spaces.enas_micro import ENASMicro
from nas_cluster.spaces.enas_recurrent import ENASRecurrent
from nas_cluster.spaces.enas_recurrent.child import DagLayer
from nas_cluster.training.shared import SharedTraining

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


def timed(functions, repeats, device):
    """Milliseconds of every function, `repeats` times, in turn."""
    now = time.thread_time if device == "cpu" else lambda: clock(device)
    found = {name: [] for name in functions}
    for _ in range(repeats):
        for name, run in functions.items():
            start = now()
            run()
            found[name].append(1000 * (now() - start))
    return found


def report(title, found, one, other):
    for name, values in found.items():
        print(f"{title:12} {name:8} {summary(values)} ms")
    ratio = statistics.median(found[one]) / statistics.median(found[other])
    print(f"{title:12} {one} / {other} = {ratio:.2f}", flush=True)


def cell(options):
    device = options.device
    x = torch.randn(STEPS, options.batch, options.hidden, requires_grad=True, device=device)
    h = torch.zeros(options.batch, options.hidden, device=device)
    layer = DagLayer(CELL.edges(per_activation=False), False, False, options.hidden, options.hidden).to(device)
    layer.choose(CELL)
    plain = PlainCell(options.hidden).to(device)

    def step(module, outputs):
        module.zero_grad()
        outputs().sum().backward()

    functions = {
        "scan": lambda: step(layer, lambda: layer(x, (h,))[0]),
        "plain": lambda: step(plain, lambda: plain(x, h)),
    }
    timed(functions, 2, device)
    report(f"cell {options.hidden}", timed(functions, options.repeats, device), "plain", "scan")


def switch(options, space, task, inputs):
    device = torch.device(options.device)
    rng = np.random.default_rng(0)
    architectures = [space.decode(space.random(rng)) for _ in range(options.repeats)]
    shared = space.build_shared(task).to(device)
    training = SharedTraining(shared, partial(torch.optim.SGD, lr=0.1, momentum=0.9, fused=True), device, 5.0)
    children = [space.build_child(architecture, task).to(device) for architecture in architectures]

    def loss(module, *chosen):
        out = module(*inputs(module), *chosen)
        return (out[0] if isinstance(out, tuple) else out).sum()

    def alone(child, optimizer):
        optimizer.zero_grad()
        loss(child).backward()
        torch.nn.utils.clip_grad_norm_(child.parameters(), 5.0)
        optimizer.step()

    found = {"shared": [], "alone": []}
    for number, (architecture, child) in enumerate(zip(architectures, children, strict=True)):
        optimizer = torch.optim.SGD(child.parameters(), lr=0.1, momentum=0.9, fused=True)
        for _ in range(2):
            pair = {
                "shared": lambda a=architecture: training.step([loss(shared, a)], 0.1),
                "alone": lambda c=child, o=optimizer: alone(c, o),
            }
            for name, values in timed(pair, 1, options.device).items():
                found[name] += values if number else []
    report(space.kind, found, "shared", "alone")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (
        ("threads", 1),
        ("repeats", 9),
        ("hidden", 200),
        ("batch", 64),
        ("filters", 20),
        ("images", 16),
    ):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    print(machine(options.device))
    cell(options)
    images, task = torch.randn(options.images, 3, 32, 32, device=options.device), ImageTask(32, 32, 3, 10)
    switch(options, ENASMicro(child={"filters": options.filters}), task, lambda module: (images,))
    switch(options, ENASMacro(child={"filters": options.filters}), task, lambda module: (images,))
    tokens_TB = torch.randint(1000, (STEPS, options.batch), device=options.device)
    space = ENASRecurrent(child={"hidden_size": options.hidden})
    words = LanguageTask(1000)
    switch(options, space, words, lambda module: (tokens_TB, module.initial_state(options.batch)))


if __name__ == "__main__":
    main()
