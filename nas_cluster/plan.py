"""What a job would do, without starting anything: topology, sizes, cost, the first sampled children."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np

from nas_cluster.cluster.learners.partition import Layout, shard_slices
from nas_cluster.config import JobConfig
from nas_cluster.core.seeds import derive
from nas_cluster.core.task import Task

__all__ = ["make_plan"]

_SAMPLES = 3
_CPU_FLOPS = 2e10
"""Rough sustained rate of one core on small convolutions and matrices; the estimate says so."""


def make_plan(config: JobConfig) -> dict[str, Any]:
    """Plain data in sections. Raises UserError as `run` would."""
    topology, budget = config.topology, config.budget
    spec = config.space.decisions()
    weights = config.strategy.initial_weights(spec, derive(config.seed, "controller"))
    layout = Layout.of(weights)
    slices = shard_slices(layout.size, topology.parameter_shards)
    at_once = topology.controller_replicas * topology.children_per_replica
    gradients = topology.controller_replicas if config.mode == "synchronous" else topology.accumulate
    per_update = topology.children_per_replica * gradients
    plan: dict[str, Any] = {
        "topology": {
            "parameter_shards": topology.parameter_shards,
            "controller_replicas": topology.controller_replicas,
            "children_per_replica": topology.children_per_replica,
            "children_at_once": topology.slots or at_once,
            "resources_per_child": ", ".join(
                [
                    *(f"{name} {amount:g}" for name, amount in topology.resources.amounts.items()),
                    *(f"{label}={wanted}" for label, wanted in topology.resources.label_selector.items()),
                ]
            ),
            "mode": config.mode,
        },
        "space": {
            "kind": config.space.kind,
            "decisions": len(spec),
            "log10_of_architectures": spec.log_size / math.log(10),
        },
        "controller": {
            "strategy": config.strategy.kind,
            "parameters": layout.size,
            "largest_shard": max(part.stop - part.start for part in slices),
            "updates": None
            if budget.max_children is None
            else budget.max_children // per_update * config.strategy.learning_epochs,
        },
        "budget": {name: value for name, value in budget.model_dump().items() if value is not None},
    }
    data = config.arrays()
    task = config.estimator.child_task(None if data is None else data.task)
    if task is not None:
        config.space.check(task)
    if data is not None and config.dataset is not None:
        plan["dataset"] = {
            "kind": config.dataset.kind,
            "task": str(data.task),
            f"training_{data.unit}": data.training_examples,
        }
    children = _first_children(config, layout.flatten(weights), task)
    if task is not None:
        plan["cost"] = _cost(config, children, config.estimator.forward_passes(data))
    plan["first_children"] = children
    return plan


def _first_children(config: JobConfig, weights: np.ndarray[Any, Any], task: Task | None) -> list[dict[str, Any]]:
    """What replica 0 samples first, with sizes counted on the meta device."""
    spec = config.space.at(0).decisions()
    proposer = config.strategy.proposer(spec)
    count = config.topology.children_per_replica
    seed = derive(config.seed, "sample", 0, 0)
    proposal = proposer.propose(weights, config.strategy.initial_state(), spec, count, seed)
    children = []
    for tokens in proposal.tokens[:_SAMPLES]:
        space = config.space.at(0)
        architecture = space.decode(tokens)
        parameters, flops = (None, None) if task is None else space.size_of(architecture, task)
        children.append({"summary": space.summary(architecture), "parameters": parameters, "forward_flops": flops})
    return children


def _cost(config: JobConfig, children: list[dict[str, Any]], passes: float) -> dict[str, Any]:
    """Operations per child and in all; hours only for CPUs, whose rate differs less than that of GPUs."""
    flops = [child["forward_flops"] * passes for child in children]
    per_child = sum(flops) / len(flops)
    cost: dict[str, Any] = {"operations_per_child": float(per_child)}
    most = config.budget.max_children
    if most is not None:
        cost["operations_in_all"] = float(per_child * most)
        if config.topology.resources.GPU == 0:
            slots = config.topology.slots or os.cpu_count() or 1
            cost["hours_on_this_machine"] = per_child * most / _CPU_FLOPS / slots / 3600
            cost["assuming"] = f"{_CPU_FLOPS:.0e} operations per second and core, {slots} children at once"
    return cost
