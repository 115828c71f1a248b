"""Where the parts of a run go: how many children the nodes hold, which nodes shards and replicas are spread over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from nas_cluster.cluster.on_ray.private import cluster_config
from nas_cluster.config.sections import Resources, Topology
from nas_cluster.core.errors import ConfigError

__all__ = ["LearnerPlaces", "alive_nodes", "capacity", "child_options", "has_labels", "holds", "this_node"]

_MARKET = "ray.io/market-type"
_UNLIMITED = 1 << 20


def alive_nodes() -> list[dict[str, Any]]:
    """The cluster's nodes, as `ray.nodes()` describes them, by id."""
    return sorted((node for node in ray.nodes() if node["Alive"]), key=lambda node: str(node["NodeID"]))


def has_labels(labels: Mapping[str, str], selector: Mapping[str, str]) -> bool:
    """Whether a node with these labels is meant: `spot`, `!spot`, `in(a, b)` or `!in(a, b)`, as Ray reads it."""
    for key, wanted in selector.items():
        values = wanted.removeprefix("!").removeprefix("in(").removesuffix(")").replace(" ", "").split(",")
        if (labels.get(key) in values) == wanted.startswith("!"):
            return False
    return True


def holds(total: Mapping[str, float], resources: Resources) -> int:
    """How many children a node holds at once. Every one is on one node whole."""
    return min(int(total.get(name, 0) / amount + 1e-6) for name, amount in resources.amounts.items())


def capacity(topology: Topology) -> int:
    """How many children the cluster holds at once: its nodes, or what its autoscaler may make of it.

    Raises ConfigError when that is none, unless `slots` says how many to ask for: then an autoscaler may know more
    than it tells.
    """
    resources = topology.resources
    nodes = [node for node in alive_nodes() if has_labels(node["Labels"], resources.label_selector)]
    most = max(sum(holds(node["Resources"], resources) for node in nodes), _autoscaled(resources))
    if most == 0 and topology.slots is None:
        total = ray.cluster_resources()
        has = ", ".join(f"{name}: {total.get(name, 0):g}" for name in resources.amounts)
        raise ConfigError(
            f"topology.resources: a child asks for {resources.in_words}, this cluster has {{{has}}} "
            "and no room for one on one node; if an autoscaler makes it, set topology.slots"
        )
    return most


def _autoscaled(resources: Resources) -> int:
    """Children on as many nodes as the autoscaler may start; 0 without one that says so."""
    config = cluster_config()
    if config is None:
        return 0
    most = 0
    for group in config.node_group_configs:
        each = holds(dict(group.resources), resources)
        most += _UNLIMITED if each and group.max_count < 0 else each * max(0, group.max_count)
    return min(most, _UNLIMITED)


def child_options(resources: Resources) -> dict[str, Any]:
    """Options of an actor in which children run, one at a time. A request that waits is what an autoscaler sees."""
    options: dict[str, Any] = {"num_cpus": resources.CPU, "num_gpus": resources.GPU}
    if resources.label_selector:
        options["label_selector"] = dict(resources.label_selector)
    return options


class LearnerPlaces:
    """Options of the actors of shards and replicas, one after the other: round the nodes, which Ray's own SPREAD only
    tries for actors that ask for nothing.

    They take no CPU and no GPU. Of the nodes with the wanted labels those without a GPU are taken, of these the ones
    that are meant for work, of these the ones that do not come and go with the price of the day.
    """

    def __init__(self, topology: Topology) -> None:
        self._selector = dict(topology.learner_label_selector)
        self._ids = _best([node for node in alive_nodes() if has_labels(node["Labels"], self._selector)])
        self._turn: Iterator[int] = count()

    def next(self) -> dict[str, Any]:
        """Where the next one goes."""
        options: dict[str, Any] = {"num_cpus": 0, "num_gpus": 0}
        if self._ids:
            node = self._ids[next(self._turn) % len(self._ids)]
            # soft: a node that is lost meanwhile costs a restart elsewhere and not the run
            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node, soft=True)
        else:
            options["label_selector"] = self._selector  # an autoscaler may bring such a node
        return options


def _best(nodes: Sequence[Mapping[str, Any]]) -> list[str]:
    def rank(node: Mapping[str, Any]) -> tuple[bool, bool, bool]:
        has = node["Resources"]
        return (has.get("GPU", 0) > 0, has.get("CPU", 0) == 0, node["Labels"].get(_MARKET) == "spot")

    best = min(map(rank, nodes), default=None)
    return [str(node["NodeID"]) for node in nodes if rank(node) == best]


def this_node() -> dict[str, Any]:
    """Options that pin an actor to the node of this process."""
    node = ray.get_runtime_context().get_node_id()
    return {"num_cpus": 0, "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False)}
