"""How a run stands, for Prometheus: gauges that Ray exports on every node (`ray_nas_cluster_...`).

Totals count from the run's first child, also after a resume: they come from the journal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from ray.util.metrics import Gauge

from nas_cluster.cluster.messages import CoordinatorClient, Progress
from nas_cluster.config import JobConfig

__all__ = ["METRICS", "publish_forever", "readings"]

_SECONDS = 5.0
"""Ray sends its own every ten."""

METRICS: dict[str, tuple[str, tuple[str, ...]]] = {
    "children": ("Children by state: done, failed, cached, running, queued.", ("state",)),
    "reward": ("Best reward, and the mean over all children that are done.", ("of",)),
    "entropy": ("Entropy of the controller's policy, in nats.", ()),
    "baseline": ("The baseline that rewards are compared with.", ()),
    "staleness": ("Updates between a replica's pull and its push, mean of the last 50.", ()),
    "updates_per_second": ("Gradients applied in a second.", ()),
    "shard_version": ("Updates that each shard has applied.", ("shard",)),
    "cache_hits": ("Children that were answered from the cache.", ()),
    "slots": ("Children that can run at once.", ()),
    "slot_utilisation": ("Share of the slots that are busy.", ()),
    "cpu_seconds": ("CPU seconds that children held.", ()),
    "gpu_seconds": ("GPU seconds that children held.", ()),
    "active_seconds": ("Seconds that the run has been at work.", ()),
}
"""Names (without `nas_cluster_`), what they are, and their tags beside `run`."""


def readings(config: JobConfig, p: Progress) -> Iterator[tuple[str, dict[str, str], float]]:
    """(name, tags, value) of all that is known."""
    states = {
        "done": p.children_done,
        "failed": p.children_failed,
        "cached": p.children_cached,
        "running": p.children_running,
        "queued": p.children_queued,
    }
    for state, number in states.items():
        yield "children", {"state": state}, number
    for of, reward in (("best", p.best_reward), ("mean", p.mean_reward)):
        if reward is not None:
            yield "reward", {"of": of}, reward
    for shard, version in enumerate(p.shard_versions):
        yield "shard_version", {"shard": str(shard)}, version
    held = config.topology.resources
    values = {
        "entropy": p.entropy,
        "baseline": p.baseline,
        "staleness": p.mean_staleness,
        "updates_per_second": p.updates_per_second,
        "cache_hits": p.children_cached,
        "slots": p.slots,
        "slot_utilisation": p.slots_busy / p.slots if p.slots else 0.0,
        "cpu_seconds": p.child_seconds * held.CPU,
        "gpu_seconds": p.child_seconds * held.GPU,
        "active_seconds": p.active_seconds,
    }
    for name, value in values.items():
        if value is not None:
            yield name, {}, value


async def publish_forever(config: JobConfig, coordinator: CoordinatorClient) -> None:
    """Set the gauges every few seconds, in the coordinator's process and beside its work."""
    gauges: dict[str, Any] = {
        name: Gauge(f"nas_cluster_{name}", text, ("run", *tags)) for name, (text, tags) in METRICS.items()
    }
    while True:
        for name, tags, value in readings(config, await coordinator.progress()):
            gauges[name].set(value, {"run": config.name, **tags})
        await asyncio.sleep(_SECONDS)
