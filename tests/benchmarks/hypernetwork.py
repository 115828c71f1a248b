"""What scoring with generated weights costs, against training.

    python tests/benchmarks/hypernetwork.py [--config configs/smash_fashion_small.yaml] [--children 200] [--trainings 5]
        [KEY=VALUE ...]

The config's estimator scores `--children` random architectures with weights from its hypernetwork (one that was never
trained: the time is the same) on all held-out images; its `retrain` trains some of them alone for one epoch each, of
those trained and held-out images. Both in turn in one process, on one core; processor time, so that other work on the
machine counts less. 200 trainings are extrapolated from those measured.
"""

import argparse
import statistics
import time

import numpy as np
import torch
from measure import machine, summary

from nas_cluster.config import JobConfig
from nas_cluster.core.evaluation import Child, ChildId
from nas_cluster.estimators import WorkerContext


def seconds(run):
    start = time.thread_time()
    evaluation = run()
    assert evaluation.status == "ok"
    return time.thread_time() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/smash_fashion_small.yaml")
    parser.add_argument("--children", type=int, default=200)
    parser.add_argument("--trainings", type=int, default=5)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = JobConfig.load(options.config, options.overrides)
    context = WorkerContext(config.space, config.dataset, seed=0)
    scoring = config.estimator.open(context)
    training = config.retrain.model_copy(update={"epochs": 1}).open(context)
    rng = np.random.default_rng(0)
    children = []
    for number in range(options.children):
        tokens = config.space.random(rng)
        architecture = config.space.decode(tokens).to_json()
        children.append(Child(ChildId(0, 0, number), number, tokens, architecture, str(number), number))
    print(machine())
    scoring.evaluate(children[0])
    scored, trained = [], []
    every = max(1, options.children // options.trainings)
    for number, child in enumerate(children):
        scored.append(seconds(lambda: scoring.evaluate(child)))  # noqa: B023
        if number % every == 0 and len(trained) < options.trainings:
            trained.append(seconds(lambda: training.evaluate(child)))  # noqa: B023
            print(f"training {len(trained)}: {trained[-1]:.1f} s", flush=True)
    all_trained = [len(scored) * one for one in trained]
    ratios = [sum(scored) / one for one in all_trained]
    print(f"scoring  {summary([1000 * one for one in scored])} ms each; {sum(scored):,.1f} s for {len(scored)}")
    print(f"training {summary(trained)} s each; {statistics.mean(all_trained):,.0f} s for {len(scored)}")
    mean = sum(scored) / statistics.mean(all_trained)
    print(f"scoring / training = {mean:.3f} ({min(ratios):.3f} to {max(ratios):.3f}), must be below 0.1", flush=True)


if __name__ == "__main__":
    main()
