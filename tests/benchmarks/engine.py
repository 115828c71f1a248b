"""The engine under simulated children: durable children per second, busy slots, the paper's topology.

python tests/benchmarks/engine.py durable|slots|paper [--repeats N]
"""

import argparse
import os
import resource
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")

from measure import machine, summary

from nas_cluster import job
from nas_cluster.config import JobConfig

ZERO_COST = {"kind": "simulated", "isolated": True}  # the path of real children: a process below each worker


def config(folder, name, *, topology, children, estimator, layers=3, cache=False):
    return JobConfig.from_dict(
        {
            "name": name,
            "mode": "asynchronous",
            "space": {"kind": "layerwise_cnn", "layers": layers},
            "strategy": {"kind": "reinforce", "learning_rate": 0.003},
            "estimator": estimator,
            "topology": topology,
            "budget": {"max_children": children},
            "storage_path": str(folder),
            "cache": cache,
        }
    )


def searched(c):
    """Run a job; its record and the seconds from the first planned child to the last committed one."""
    outcome = job.execute(c)
    assert outcome.ended == "done", outcome
    record = job.load_run(Path(c.storage_path) / c.name)
    rows = record.children()
    assert len(rows) == c.budget.max_children
    assert all(row.done for row in rows), "every child is recorded"
    return record, max(r.finished_at for r in rows) - min(r.planned_at for r in rows)


def tune_trials_per_second(folder, trials):
    from ray import tune

    def trivial(options):
        tune.report({"reward": options["x"]})

    tuner = tune.Tuner(
        trivial,
        param_space={"x": tune.uniform(0, 1)},
        tune_config=tune.TuneConfig(num_samples=trials, reuse_actors=True, max_concurrent_trials=2),
        run_config=tune.RunConfig(storage_path=str(folder), verbose=0),
    )
    started = time.perf_counter()
    results = tuner.fit()
    assert len(results) == trials
    return trials / (time.perf_counter() - started)


def durable(repeats):
    """Each child is planned, scored, committed to disk and learned from; Tune's trial is the same trivial function."""
    import ray

    topology = {
        "parameter_shards": 1,
        "controller_replicas": 4,
        "children_per_replica": 8,
        "replicas_per_actor": 2,
        "max_staleness": 8,
    }
    ours, tunes = [], []
    for repeat in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            c = config(folder, f"durable-{repeat}", topology=topology, children=3200, estimator=ZERO_COST, layers=2)
            _, seconds = searched(c)
            ours.append(3200 / seconds)
            ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="error")
            tunes.append(tune_trials_per_second(folder, 60))
            ray.shutdown()
    print(f"durable children per second (K=4, m=8): {summary(ours)}")
    print(f"Ray Tune trials per second:             {summary(tunes)}")
    print(f"ratio of medians: {statistics.median(ours) / statistics.median(tunes):.1f}")


def slots(repeats):
    """Slot-time used while the queue is full: from the first child's start until the queue runs dry."""
    shares = []
    for repeat in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            topology = {
                "parameter_shards": 2,
                "controller_replicas": 32,  # with fewer, all children of all minibatches are sometimes at work or done
                "children_per_replica": 8,
                "replicas_per_actor": 16,
                "slots": 64,
            }
            estimator = {"kind": "simulated", "duration": {"seconds": 2.0, "sigma": 0.5}}
            record, _ = searched(
                config(folder, f"slots-{repeat}", topology=topology, children=1280, estimator=estimator)
            )
            rows = record.children()
            start = min(r.started_at for r in rows)
            dry = max(r.started_at for r in rows)  # the last child leaves the queue
            used = sum(min(r.finished_at, dry) - r.started_at for r in rows)
            shares.append(100 * used / (64 * (dry - start)))
    print(f"slot-time used, 64 slots, log-normal durations around 2 s (%): {summary(shares)}")


def paper(repeats):
    """Zoph & Le 2017: S=20, K=100, m=8, 800 children at once, 12,800 in all."""
    for repeat in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            topology = {
                "parameter_shards": 20,
                "controller_replicas": 100,
                "children_per_replica": 8,
                "replicas_per_actor": 50,
                "shards_per_actor": 5,
                "slots": 800,
                "snapshot_every": 100,
            }
            estimator = {"kind": "simulated", "duration": {"seconds": 1.0, "sigma": 0.5}}
            c = config(folder, f"paper-{repeat}", topology=topology, children=12_800, estimator=estimator, layers=6)
            started = time.perf_counter()
            record, seconds = searched(c)
            whole = time.perf_counter() - started
            rows = record.children()
            starts = sorted([(r.started_at, 1) for r in rows] + [(r.finished_at, -1) for r in rows])
            busy = most = 0
            for _, change in starts:
                busy += change
                most = max(most, busy)
            usage = resource.getrusage(resource.RUSAGE_CHILDREN)
            applied = [b for b in record.batches() if b.applied_at]
            print(f"12,800 children recorded, {len(applied)} updates applied, at most {most} children at once")
            print(f"seconds searching {seconds:.1f}, with starting and ending {whole:.1f}")
            print(
                f"controller side: {1000 * seconds * (os.cpu_count() or 1) / 12_800:.2f} ms of machine time per child"
            )
            print(f"largest process of the run: {usage.ru_maxrss / 1024:.0f} MiB")
            print(f"mean staleness {statistics.fmean(b.staleness for b in applied):.1f} updates")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["durable", "slots", "paper"])
    parser.add_argument("--repeats", type=int, default=None)
    arguments = parser.parse_args()
    print(f"{time.strftime('%Y-%m-%d')} · {machine()}")
    run, repeats = {"durable": (durable, 3), "slots": (slots, 2), "paper": (paper, 1)}[arguments.what]
    run(arguments.repeats or repeats)


if __name__ == "__main__":
    main()
