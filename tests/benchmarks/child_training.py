"""Child training against plain loops: the rows of the trainer's README.

    python tests/benchmarks/child_training.py pipeline|children|fixed|evaluation --data FILE.npz [--name NAME]
    python tests/benchmarks/child_training.py children|fixed|evaluation --data FILE.npz --device cuda [--slots 1 2 4 8]

FILE.npz holds x_train, y_train, x_test, y_test; its name is printed beside every figure. The children are trained on
5,000 images (`--images`); `children --images 1000 --repeats 1` is a look of a minute. `--slots` are the numbers of warm
workers to try side by side: on a GPU they share the card.
"""

import argparse
import asyncio
import contextlib
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from measure import machine, summary

from nas_cluster.cluster.children.worker import ChildWorker
from nas_cluster.config import JobConfig
from nas_cluster.core.evaluation import Child, ChildId

VALIDATION, EPOCHS, BATCH = 1000, 2, 64
SPACE = {"kind": "layerwise_cnn", "layers": 4, "filters": [24, 36]}
ARCHITECTURE = {
    "layers": [
        {"filter_height": 3, "filter_width": 3, "filters": 24, "inputs": [0]},
        {"filter_height": 3, "filter_width": 3, "filters": 36, "inputs": [1]},
        {"filter_height": 5, "filter_width": 5, "filters": 36, "inputs": [1, 2]},
        {"filter_height": 3, "filter_width": 3, "filters": 36, "inputs": [2, 3]},
    ]
}
"""A small child of NAS-RL's space."""


def job(data, device="cpu", slots=1):
    return JobConfig.from_dict(
        {
            "name": "benchmark",
            "dataset": {"kind": "npz", "path": str(data)},
            "space": SPACE,
            "strategy": "random",
            "estimator": {"kind": "train", "epochs": EPOCHS, "batch_size": BATCH, "validation": VALIDATION},
            "topology": {"resources": {"CPU": 1, "GPU": 1 / slots if device == "cuda" else 0}},
            "budget": {"max_children": 1},
        }
    )


def child(number):
    return Child(ChildId(0, 0, number), number, (), ARCHITECTURE, "", number)


def subset(data, folder, images):
    """The first `images` + 1,000 training images of FILE.npz as a dataset of its own."""
    with np.load(data) as arrays:
        n = images + VALIDATION
        path = Path(folder) / "subset.npz"
        np.savez(path, **{k: arrays[k][: n if k.endswith("train") else 1000] for k in arrays})
    return path


# -- the plain loop, as a script would have it


def plain_child(data, seed, workers, device):
    """Train the same child with PIL transforms, a DataLoader, and a synchronisation per step; prints its accuracy."""
    import torch
    from PIL import Image
    from torch.nn import functional as F
    from torchvision import transforms

    from nas_cluster.datasets import train_validation_split

    with np.load(data) as arrays:
        x, y = arrays["x_train"], arrays["y_train"]
    training, validation = train_validation_split(y, VALIDATION, 0)
    mean, std = x[training].mean((0, 1, 2)) / 255, x[training].std((0, 1, 2)) / 255
    normal = [transforms.ToTensor(), transforms.Normalize(mean, std)]
    augmented = transforms.Compose([transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), *normal])

    class Images(torch.utils.data.Dataset):
        def __init__(self, indices, transform):
            self.indices, self.transform = indices, transform

        def __len__(self):
            return len(self.indices)

        def __getitem__(self, i):
            return self.transform(Image.fromarray(x[self.indices[i]])), int(y[self.indices[i]])

    torch.manual_seed(seed)
    config = job(data)
    from nas_cluster.core.task import ImageTask

    model = config.space.build_child(config.space.parse(ARCHITECTURE), ImageTask(32, 32, 3, 10)).to(device)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9, 0, 1e-4, nesterov=True)
    loader = torch.utils.data.DataLoader(
        Images(training, augmented), BATCH, shuffle=True, drop_last=True, num_workers=workers
    )
    for _ in range(EPOCHS):
        model.train()
        for images, labels in loader:
            loss = F.cross_entropy(model(images.to(device)), labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()
    model.eval()
    held_out = torch.utils.data.DataLoader(Images(validation, transforms.Compose(normal)), 500, num_workers=workers)
    with torch.no_grad():
        hits = sum(int((model(x.to(device)).argmax(1).cpu() == labels).sum()) for x, labels in held_out)
    print(json.dumps({"accuracy": hits / VALIDATION}))


def start_plain(data, device, seed, workers, threads):
    environment = dict(os.environ)
    environment.pop("OMP_NUM_THREADS", None)
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    options = {"data": data, "device": device, "seed": seed, "workers": workers}
    arguments = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, __file__, "plain", *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def finish_plain(process):
    output, _ = process.communicate()
    assert process.returncode == 0, output
    return json.loads(output.splitlines()[-1])["accuracy"]


# -- what is measured


async def warm_children(workers, first, count):
    """`count` children over warm workers; seconds and accuracies."""
    queue = list(range(first, first + count))
    accuracies = []

    async def serve(worker):
        while queue:
            evaluation = (await worker.evaluate(child(queue.pop()))).evaluation
            assert evaluation.status == "ok", evaluation
            accuracies.append(evaluation.metrics["accuracy"])

    started = time.perf_counter()
    await asyncio.gather(*(serve(worker) for worker in workers))
    return time.perf_counter() - started, accuracies


@contextlib.asynccontextmanager
async def warm_workers(path, device, slots):
    """So many warm workers that have trained a child each."""
    config = job(path, device, slots).to_dict()
    workers = [ChildWorker(f"w{i}", config, log=Path(path).parent / f"w{i}.log") for i in range(slots)]
    await asyncio.gather(*(worker.start() for worker in workers))
    await warm_children(workers, 10_000, slots)
    yield workers
    for worker in workers:
        await worker.close()


def children(data, name, repeats, images, device, slots):
    rate, accuracy = defaultdict(list), defaultdict(list)

    async def measure(path):
        async with contextlib.AsyncExitStack() as stack:
            groups = [await stack.enter_async_context(warm_workers(path, device, number)) for number in slots]
            for repeat in range(repeats):
                started = time.perf_counter()
                accuracy["A"].append(finish_plain(start_plain(path, device, repeat, workers=2, threads=None)))
                rate["A"].append(3600 / (time.perf_counter() - started))
                started = time.perf_counter()
                pair = [start_plain(path, device, 100 + 2 * repeat + i, workers=0, threads=1) for i in range(2)]
                accuracy["B"] += [finish_plain(process) for process in pair]
                rate["B"].append(2 * 3600 / (time.perf_counter() - started))
                for number, workers in zip(slots, groups, strict=True):
                    count = number * (2 if device == "cpu" else 16)
                    seconds, found = await warm_children(workers, 1000 + count * repeat, count)
                    rate[number].append(count * 3600 / seconds)
                    accuracy["warm"] += found

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(subset(data, folder, images)))
    print(f"{images} images of {name}, {EPOCHS} epochs, batch {BATCH}, small NAS-RL child; children per hour:")
    print(f"  A, one fresh process      {summary(rate['A'])}")
    print(f"  B, two fresh processes    {summary(rate['B'])}")
    middle = {which: statistics.median(values) for which, values in rate.items()}
    for number in slots:
        ratios = {"A": "A", "B": "B", f"{slots[0]} warm": slots[0]}
        against = ", ".join(f"{middle[number] / middle[other]:.2f} x {name}" for name, other in ratios.items())
        print(f"  {number:2} warm workers          {summary(rate[number])}: {against}")
    plain = accuracy["A"] + accuracy["B"]
    ours = accuracy["warm"]
    errors = [statistics.stdev(group) ** 2 / len(group) for group in (plain, ours)]
    gap = statistics.fmean(ours) - statistics.fmean(plain)
    print(
        f"  accuracy: plain {statistics.fmean(plain):.3f} (n={len(plain)}), warm {statistics.fmean(ours):.3f} "
        f"(n={len(ours)}), difference {gap:+.3f} = {gap / math.sqrt(sum(errors)):+.1f} standard errors"
    )


def pipeline(data, name, repeats):
    import torch
    from PIL import Image
    from torchvision import transforms

    from nas_cluster.datasets import train_validation_split
    from nas_cluster.datasets.npz import Npz
    from nas_cluster.training.images import ImageStore

    torch.set_num_threads(1)
    arrays = Npz(path=str(data)).load()
    settings = job(data).estimator
    training, validation = train_validation_split(arrays.y_train, VALIDATION, 0)
    store = ImageStore(arrays, training, validation, settings, "cpu")
    rows = torch.from_numpy(store.plan(0).epoch(0).stacked())
    transform = transforms.Compose(
        [
            transforms.RandomCrop(32, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize((0.49, 0.48, 0.45), (0.25, 0.24, 0.26)),
        ]
    )

    class Images(torch.utils.data.Dataset):
        def __len__(self):
            return 5000

        def __getitem__(self, i):
            return transform(Image.fromarray(arrays.x_train[i])), int(arrays.y_train[i])

    fast, plain = [], []
    for _ in range(repeats):
        started = time.perf_counter()
        for step in rows[:200]:
            store.training_batch(step, torch.float32)
        fast.append(200 * BATCH / (time.perf_counter() - started))
        loader = iter(torch.utils.data.DataLoader(Images(), BATCH, shuffle=True, num_workers=2))
        next(loader)  # its workers are running
        started, seen = time.perf_counter(), 0
        for images, _ in loader:
            seen += len(images)
        plain.append(seen / (time.perf_counter() - started))
    print(f"input pipeline, {name}, batch {BATCH}, images per second:")
    print(f"  whole-batch tensors, one thread     {summary(fast)}")
    print(f"  PIL + DataLoader, 2 workers         {summary(plain)}")
    print(f"  ratio {statistics.median(fast) / statistics.median(plain):.1f}")


def warm_trainer(data, device, **settings):
    import torch

    from nas_cluster.estimators import WorkerContext

    torch.set_num_threads(1)
    config = job(data)
    estimator = config.estimator.model_copy(update=settings)
    return estimator.open(WorkerContext(config.space, config.dataset, config.seed, device))


def fixed(data, name, repeats, device):
    """Children of 1 and of 5 steps (an epoch is one step and its evaluation): what is left without steps."""
    with tempfile.TemporaryDirectory() as folder:
        with np.load(data) as arrays:
            few = {k: arrays[k][:64] for k in arrays}
        few = {k: (np.arange(len(v)) % 4 if k.startswith("y") else v) for k, v in few.items()}
        path = Path(folder) / "few.npz"
        np.savez(path, **few)
        seconds = {epochs: [] for epochs in (1, 5)}
        for epochs, times in seconds.items():
            trainer = warm_trainer(path, device, epochs=epochs, validation=8, batch_size=56)
            for number in range(20 * repeats):
                started = time.perf_counter()
                trainer.evaluate(child(number))
                times.append(1000 * (time.perf_counter() - started))
            del times[0]  # the first child of a worker
    short, long = (statistics.median(times) for times in seconds.values())
    print(f"a child of 1 step, {name}, ms: {summary(seconds[1])}")
    print(f"a child of 5 steps, ms:         {summary(seconds[5])}")
    print(f"fixed cost of a child in a warm worker, ms: {short - (long - short) / 4:.1f}")


def evaluation(data, name, repeats, device):
    import torch

    from nas_cluster.core.task import ImageTask
    from nas_cluster.training.image_classifier import evaluate

    trainer = warm_trainer(data, device)
    batches = list(trainer._store.validation_batches())
    config = job(data)
    model = config.space.build_child(config.space.parse(ARCHITECTURE), ImageTask(32, 32, 3, 10)).to(device)
    plain_batches = [(x.contiguous(), y) for x, y in batches]
    images = sum(len(y) for _, y in batches)
    fast, plain = [], []
    for _ in range(repeats + 1):
        model = model.to(memory_format=torch.channels_last)
        started = time.perf_counter()
        evaluate(model, batches, torch.bfloat16)
        fast.append(images / (time.perf_counter() - started))
        model = model.to(memory_format=torch.contiguous_format)
        started = time.perf_counter()
        evaluate(model, plain_batches, torch.float32)
        plain.append(images / (time.perf_counter() - started))
    print(f"evaluation, {name}, images per second, {device}:")
    print(f"  bf16 channels_last {summary(fast[1:])}")
    print(f"  fp32 NCHW          {summary(plain[1:])}")
    print(f"  ratio {statistics.median(fast[1:]) / statistics.median(plain[1:]):.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["pipeline", "children", "fixed", "evaluation", "plain"])
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--name", help="what the data is called in the output")
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--images", type=int, default=5000, help="training images of a child (children)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--slots", type=int, nargs="+", default=[2], help="warm workers to try (children)")
    a = parser.parse_args()
    if a.what == "plain":
        plain_child(a.data, a.seed, a.workers, a.device)
        return
    print(f"{time.strftime('%Y-%m-%d')} · {machine(a.device)}")
    name = a.name or a.data.name
    if a.what == "children":
        children(a.data, name, a.repeats or 4, a.images, a.device, a.slots)
    elif a.what == "pipeline":
        pipeline(a.data, name, a.repeats or 5)
    else:
        run, repeats = {"fixed": (fixed, 1), "evaluation": (evaluation, 9)}[a.what]
        run(a.data, name, a.repeats or repeats, a.device)


if __name__ == "__main__":
    main()
