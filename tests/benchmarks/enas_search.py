"""What ENAS's search costs around the training step.

python tests/benchmarks/enas_search.py workers|scoring [--repeats 3]
python tests/benchmarks/enas_search.py epoch --data FILE.npz [--job configs/enas_micro_cifar10.yaml] [KEY=VALUE ...]

workers  images per second of a phase of shared weights (micro, 20 filters, 8 cells, 32x32, M=2 architectures a
         step): two gloo workers of one thread against one worker of one thread and one of two
scoring  rewards of 100 architectures: all in the queue of one worker at once against one by one, each with its own
         update of the controller, as the engine records both
epoch    seconds of one epoch of a search on a GPU: the phase of the shared weights and the controller's updates after
         it, and how much of the time the card is busy (nvidia-smi); by default at the paper's micro setting
"""

import argparse
import contextlib
import os
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import torch.multiprocessing as multiprocessing
from measure import machine, summary

from nas_cluster import job
from nas_cluster.config import JobConfig
from nas_cluster.core.phases import PhaseOrder
from nas_cluster.core.seeds import stream
from nas_cluster.estimators.base import WorkerContext

STEPS, BATCH = 6, 32


def config(folder, name, images=1000, **changes):
    """A job on random images of CIFAR's shape."""
    rng = np.random.default_rng(0)
    file = Path(folder) / f"{images}.npz"
    if not file.exists():
        x = rng.integers(0, 256, (images, 32, 32, 3), dtype=np.uint8)
        y = rng.integers(0, 10, images)
        np.savez(file, x_train=x, y_train=y, x_test=x[:100], y_test=y[:100])
    data = {
        "name": name,
        "mode": "asynchronous",
        "dataset": {"kind": "npz", "path": str(file)},
        "space": {"kind": "enas_micro"},
        "strategy": {"kind": "reinforce", "controller": {"kind": "lstm", "layers": 1, "hidden_size": 100}},
        "estimator": {"kind": "shared_weights", "epochs": 1, "batch_size": BATCH, "validation": 500},
        "budget": {"max_children": 100},
        "storage_path": str(folder),
        "cache": False,
    }
    return JobConfig.from_dict({**data, **changes})


def train(data, order, threads, queue):
    import torch

    torch.set_num_threads(threads)
    c = JobConfig.from_dict(data)
    evaluator = c.estimator.open(WorkerContext(c.space, c.dataset, c.seed))
    warm = PhaseOrder(0, order.tokens[:1], None, order.target)
    evaluator.train_phase(warm)
    evaluator._training.phase = -2
    queue.put((order.rank, evaluator.train_phase(order)))


def phase_seconds(c, folder, world, threads):
    """Seconds of the same phase, trained by `world` processes."""
    tokens = [c.space.random(stream(0, index)) for index in range(2 * STEPS)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        rendezvous = f"127.0.0.1:{free.getsockname()[1]}"
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    pairs = tuple(tuple(tokens[2 * step : 2 * step + 2]) for step in range(STEPS))
    orders = [
        PhaseOrder(0, pairs, None, str(Path(folder) / f"{rank}.safetensors"), rank, world, rendezvous)
        for rank in range(world)
    ]
    processes = [context.Process(target=train, args=(c.to_dict(), order, threads, queue)) for order in orders]
    for process in processes:
        process.start()
    results = [queue.get(timeout=600)[1] for _ in processes]
    for process in processes:
        process.join()
    assert len({result.digest for result in results}) == 1
    return max(result.seconds for result in results)


def workers(repeats):
    shapes = {"one worker, one thread": (1, 1), "one worker, two threads": (1, 2), "two workers, one thread": (2, 1)}
    found = {name: [] for name in shapes}
    with tempfile.TemporaryDirectory() as folder:
        c = config(folder, "workers")
        for _ in range(repeats):
            for name, (world, threads) in shapes.items():
                found[name].append(2 * STEPS * BATCH / phase_seconds(c, folder, world, threads))
    for name, values in found.items():
        print(f"{name:24} {summary(values)} images/s")
    two = statistics.median(found["two workers, one thread"])
    for name in list(shapes)[:2]:
        print(f"two workers / {name}: {two / statistics.median(found[name]):.2f}", flush=True)


def scoring(repeats):
    """Seconds from the first planned child to the last committed one, without the phase."""
    found = {"one by one": [], "in batch": []}
    for repeat in range(repeats):
        for name, per_replica in (("one by one", 1), ("in batch", 100)):
            with tempfile.TemporaryDirectory() as folder:
                topology = {"controller_replicas": 1, "children_per_replica": per_replica, "slots": 1}
                c = config(folder, f"scoring-{repeat}", topology=topology)
                assert job.execute(c, local=True).ended == "done"
                rows = job.load_run(Path(folder) / c.name).children()
                assert len(rows) == 100 and all(row.done and row.ok for row in rows)
                found[name].append(max(r.finished_at for r in rows) - min(r.started_at for r in rows))
    for name, values in found.items():
        print(f"{name:12} {summary([1000 * value / 100 for value in values])} ms per architecture")
    one, batch = (statistics.median(values) for values in found.values())
    print(f"one by one / in batch: {one / batch:.2f}")


def epoch(options):
    """The first epochs of a config's search, from the moment at which its workers begin to train."""
    with tempfile.TemporaryDirectory() as folder:
        changes = [*options.changes, f"storage_path={folder}", "finalize=[]", "correlate=null"]
        if options.data:
            changes.append(f"dataset={{kind: npz, path: {options.data}}}")
        c = JobConfig.load(options.job, changes)
        children = c.estimator.updates * c.topology.controller_replicas * c.topology.children_per_replica
        c = JobConfig.load(options.job, [*changes, f"budget={{max_children: {options.repeats * children}}}"])
        with gpu_busy() as busy:
            assert job.execute(c).ended == "done"
        record = job.load_run(Path(folder) / c.name)
        phases, rows = record.phases()[: options.repeats], record.children()
    scored = [[r for r in rows if r.child.child_id.update // c.estimator.updates == n] for n in range(len(phases))]
    ends = [max(r.finished_at for r in of_epoch) for of_epoch in scored]
    training = [(phase.finished_at - phase.result.seconds, phase.finished_at) for phase in phases]
    updates = [(phase.finished_at, end) for phase, end in zip(phases, ends, strict=True)]
    print(f"{c.name} {' '.join(options.changes)}: a phase of {len(phases[0].tokens)} steps, then {children} children")
    print(f"  seconds of a phase    {summary([b - a for a, b in training])}")
    print(f"  seconds of an epoch   {summary([b - a for (a, _), (_, b) in zip(training, updates, strict=True)])}")
    print(f"  ms of a child         {summary([1000 * (b - a) / children for a, b in updates])}")
    for name, spans in (("phases", training), ("updates", updates)):
        shares = [share for at, share in busy if any(a <= at <= b for a, b in spans)] or [0]
        print(f"  card busy in {name:8} {statistics.fmean(shares):.0f} % of the time (n={len(shares)})")
    metrics = [row.metric for row in scored[-1][-100:]]
    print(f"  metric of the last {len(metrics)} children: {statistics.fmean(metrics):.3f}", flush=True)


@contextlib.contextmanager
def gpu_busy():
    """(time, percent of the last moments in which a kernel ran), filled while the context lasts."""
    found = []
    command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "200"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        reader = threading.Thread(target=lambda: found.extend((time.time(), int(line)) for line in process.stdout))
        reader.start()
        try:
            yield found
        finally:
            process.terminate()
            reader.join()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["workers", "scoring", "epoch"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--data", type=Path, help="images instead of the job's dataset (epoch)")
    parser.add_argument("--job", type=Path, default=Path("configs/enas_micro_cifar10.yaml"), help="(epoch)")
    parser.add_argument("changes", nargs="*", metavar="KEY=VALUE", help="of the job (epoch)")
    options = parser.parse_intermixed_args()
    print(machine("cuda" if torch.cuda.is_available() else "cpu"))
    if options.what == "epoch":
        epoch(options)
    else:
        {"workers": workers, "scoring": scoring}[options.what](options.repeats)


if __name__ == "__main__":
    main()
