"""Training of NASNet's search child against the same cells written plainly.

    python tests/benchmarks/nasnet_child.py [--cells 2 --filters 32 --batch 32 --random 3 --repeats 5]
    python tests/benchmarks/nasnet_child.py --device cuda --batch 128 --repeats 30

One thread, 32x32 images; a step is forward, backward and SGD. Plain: tests/spaces/plain_nasnet.py, float32 NCHW,
nn.Conv2d throughout. Before anything is timed, both give the same loss and gradients in float64. Both run in one
process, step by step in turn, with the allocator set as in a child's worker. On a GPU ours is the trainer's step there,
bfloat16 and one captured graph.
"""

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np
from measure import clock, machine, summary, trainer_step

sys.path.insert(0, str(Path(__file__).parent.parent / "spaces"))

_AS_IN_A_WORKER = {"OMP_NUM_THREADS": "1", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


def networks(space, architecture, cells, filters):
    """Ours and the plain one with equal weights."""
    import torch
    from plain_nasnet import PlainNASNet

    from nas_cluster.core.task import ImageTask

    torch.manual_seed(0)
    ours = space.build_child(architecture, ImageTask(32, 32, 3, 10))
    plain = PlainNASNet(architecture, 3, 10, cells, filters)
    with torch.no_grad():
        for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
            b.copy_(a)
    return ours, plain


def check_equal(ours, plain):
    """Equal losses and gradients in float64 on one small batch."""
    import torch
    from torch.nn import functional as F

    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    losses = []
    for model, layout in ((ours, torch.channels_last), (plain, torch.contiguous_format)):
        loss = F.cross_entropy(model.double().to(memory_format=layout)(images), torch.tensor([1, 2]))
        loss.backward()
        losses.append(loss.item())
    assert abs(losses[0] - losses[1]) < 1e-10, losses
    for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, rtol=1e-8, atol=1e-9)
        a.grad = b.grad = None
    ours.float(), plain.float()


def steps_of(ours, plain, batch, device):
    """What is timed: a training step of either, on the same images."""
    import torch
    from torch.nn import functional as F

    images = torch.randn(batch, 3, 32, 32, device=device)
    images_last, labels = images.to(memory_format=torch.channels_last), torch.randint(10, (batch,), device=device)
    ours = ours.to(device, memory_format=torch.channels_last)
    plain = plain.to(device, memory_format=torch.contiguous_format)
    optimizer = torch.optim.SGD(plain.parameters(), 0.01, 0.9)

    def fast_loss(inputs):
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda", cache_enabled=False):
            logits = ours(inputs)
        return F.cross_entropy(logits.float(), labels)

    def plain_step():
        optimizer.zero_grad()
        F.cross_entropy(plain(images), labels).backward()
        optimizer.step()

    fast = trainer_step(ours, fast_loss, device, momentum=0.9)
    return {"ours": lambda: fast(images_last), "plain": plain_step}


def compare(space, architecture, cells, filters, batch, repeats, device):
    """Print milliseconds per step and the ratio of medians; return the ratios of wall and processor time."""
    ours, plain = networks(space, architecture, cells, filters)
    check_equal(ours, plain)
    steps, times = steps_of(ours, plain, batch, device), {"ours": [], "plain": []}
    warm_up = 1 if device == "cpu" else 5
    for repeat in range(repeats + warm_up):
        for name, step in steps.items():
            wall, processor = clock(device), time.process_time()
            path = step()
            wall, processor = clock(device) - wall, time.process_time() - processor
            assert path in (None, "eager" if device == "cpu" else "cuda_graph") or repeat < warm_up, path
            if repeat >= warm_up:
                times[name].append((1000 * wall, 1000 * processor))
    ratios = []
    print(f"{space.summary(architecture)}: ms per step of {batch} images")
    for which, label in enumerate(("wall", "processor")):
        fast, slow = ([both[which] for both in found] for found in times.values())
        ratios.append(statistics.median(slow) / statistics.median(fast))
        print(f"  {label:<9} ours {summary(fast)}, plain {summary(slow)}: ratio {ratios[-1]:.2f}", flush=True)
    return ratios


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=2, help="N")
    parser.add_argument("--filters", type=int, default=32, help="F")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--random", type=int, default=3, help="random architectures beside NASNet-A")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    a = parser.parse_args()
    if any(os.environ.get(name) != value for name, value in _AS_IN_A_WORKER.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **_AS_IN_A_WORKER})
    import torch

    from nas_cluster.spaces.nasnet_cell import NASNetCell

    torch.set_num_threads(1)
    print(f"{time.strftime('%Y-%m-%d')} · {machine(a.device)}")
    space = NASNetCell(child={"num_cells": a.cells, "filters": a.filters})
    rng, architectures = np.random.default_rng(0), [space.load_named("nasnet_a")]
    while len(architectures) <= a.random:
        sampled = space.decode(space.random(rng))
        if sampled.normal.reads(0) and sampled.reduction.reads(0):
            architectures.append(sampled)
    found = [compare(space, x, a.cells, a.filters, a.batch, a.repeats, a.device) for x in architectures]
    wall, processor = (statistics.median(ratios) for ratios in zip(*found, strict=True))
    print(f"median ratio over {len(found)} cells: wall {wall:.2f}, processor {processor:.2f}")


if __name__ == "__main__":
    main()
