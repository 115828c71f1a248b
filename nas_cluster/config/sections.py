"""The sections of a job that are not components: topology, budget, failures."""

from __future__ import annotations

import math
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from nas_cluster.core.component import Options
from nas_cluster.core.reward import MOST

__all__ = ["Budget", "Control", "Failures", "Resources", "Topology"]

Positive = Annotated[float, Field(gt=0)]

_LABEL = r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
_LABEL_KEY = re.compile(rf"([a-z0-9]([a-z0-9.-]{{0,251}}[a-z0-9])?/)?{_LABEL}")
_LABEL_WANTED = re.compile(rf"!?({_LABEL}|in\({_LABEL}(, ?{_LABEL})*\))")


def _labels(selector: dict[str, str]) -> dict[str, str]:
    """Ray's label selectors. Refused here, because Ray would find out only when the actor is made."""
    for key, wanted in selector.items():
        if not _LABEL_KEY.fullmatch(key):
            raise ValueError(f"{key!r} is no label; write for instance ray.io/market-type")
        if not _LABEL_WANTED.fullmatch(wanted):
            raise ValueError(f"{key}: write a value, '!value', 'in(a, b)' or '!in(a, b)', not {wanted!r}")
    return selector


LabelSelector = Annotated[dict[str, str], AfterValidator(_labels)]
"""Labels that a node must have: {ray.io/market-type: spot, ray.io/accelerator-type: 'in(A100, H100)'}."""


class Resources(Options):
    """What one child holds while it runs, in Ray's words."""

    CPU: float = Field(1, ge=0)
    GPU: float = Field(0, ge=0)
    label_selector: LabelSelector = {}
    """Only on nodes with these labels: a type of card, spot nodes, a node group."""

    @property
    def amounts(self) -> dict[str, float]:
        """What is asked for, without zeros: {"CPU": 1.0, "GPU": 0.25}."""
        return {name: amount for name, amount in (("CPU", self.CPU), ("GPU", self.GPU)) if amount > 0}

    @property
    def in_words(self) -> str:
        """`{CPU: 1, GPU: 0.25}`, and on which nodes."""
        amounts = ", ".join(f"{name}: {amount:g}" for name, amount in self.amounts.items())
        labels = ", ".join(f"{key}: {wanted}" for key, wanted in self.label_selector.items())
        return f"{{{amounts}}}" + (f" on nodes with {{{labels}}}" if labels else "")

    @field_validator("GPU")
    @classmethod
    def _whole_children_per_card(cls, value: float) -> float:
        """Ray admits more children than fit when a fraction is not 1/n, so only 1/n is accepted."""
        if 0 < value < 1:
            per_card = round(1 / value)
            if abs(value * per_card - 1) > 0.01:
                raise ValueError(f"a fraction of a GPU must be 1/n; the nearest is {1 / per_card:.4g} (1/{per_card})")
            return 1 / per_card
        if value != int(value):
            raise ValueError(f"more than one GPU must be a whole number; the nearest is {round(value)}")
        return value

    @model_validator(mode="after")
    def _something(self) -> Resources:
        if self.CPU == 0 and self.GPU == 0:
            raise ValueError("a child must hold some CPU or GPU")
        return self


class Topology(Options):
    """The parameter-server scheme of Zoph & Le 2017, Figure 3: S shards, K replicas, m children per replica."""

    parameter_shards: int = Field(1, ge=1)
    controller_replicas: int = Field(1, ge=1)
    children_per_replica: int = Field(1, ge=1)
    accumulate: int = Field(1, ge=1)
    """Gradients added up before the servers apply one update (10 in the paper's Penn Treebank run)."""
    max_staleness: int | None = Field(None, ge=0)
    """Updates that may be applied between a replica's pull and its push; unbounded when null."""
    stale_gradients: Literal["wait", "down_weight", "drop"] = "wait"
    """Above max_staleness: hold faster replicas back, scale the gradient by (bound+1)/(staleness+1), or drop it."""
    resources: Resources = Resources()
    slots: int | None = Field(None, ge=1)
    """Children at once; null: as many as the cluster's resources hold, at most K times m."""
    replicas_per_actor: int = Field(1, ge=1)
    """Replicas that share a process: 100 of them are then affordable (140 MiB instead of 6 GiB)."""
    shards_per_actor: int = Field(1, ge=1)
    learner_label_selector: LabelSelector = {}
    """Only on nodes with these labels are shards and replicas. They never take a GPU, and keep to nodes without one
    where there are any."""
    snapshot_every: int = Field(10, ge=1)
    """Updates between two snapshots."""

    @model_validator(mode="after")
    def _bound_is_reachable(self) -> Topology:
        least = -(-(self.controller_replicas - 1) // self.accumulate)
        if self.stale_gradients == "wait" and self.max_staleness is not None and self.max_staleness < least:
            raise ValueError(
                f"max_staleness {self.max_staleness} cannot be kept by waiting: of {self.controller_replicas} replicas "
                f"the last is always {least} updates behind; use at least {least}, or 'drop' or 'down_weight'"
            )
        return self


class Budget(Options):
    """When a search ends: at whichever comes first. Downtime costs nothing; `resume` may raise every figure."""

    max_children: int | None = Field(None, ge=1)
    max_hours: Positive | None = None
    """Hours of running, summed over all sessions."""
    max_gpu_hours: Positive | None = None
    """GPU hours held by children (their seconds times resources.GPU)."""
    target_reward: float | None = None
    """Stop once a child reaches this reward."""

    @model_validator(mode="after")
    def _ends(self) -> Budget:
        if self.max_children is None and self.max_hours is None and self.max_gpu_hours is None:
            raise ValueError("a search must end: set max_children, max_hours or max_gpu_hours")
        return self


class Control(Options):
    """A control arm: children sampled uniformly at random under the same budget and never learned from, so that the run
    itself says whether its strategy beats chance."""

    share: float = Field(gt=0, le=0.9)
    """Of all children, spread evenly."""

    def takes(self, number: int) -> bool:
        """Whether the child of this number is a control."""
        return math.floor((number + 1) * self.share) > math.floor(number * self.share)


class Failures(Options):
    """What a child may cost, and what its failure means."""

    reward: float = Field(0.0, ge=-MOST, le=MOST)
    """Reward of a failed child."""
    retries: int = Field(1, ge=0)
    """Further attempts after a fault that is not the child's own (worker lost, killed from outside)."""
    max_in_a_row: int = Field(20, ge=1)
    """So many failed children one after the other stop the run: the fault is then hardly theirs."""
    time_limit: Positive | None = None
    """Seconds one child may run."""
    stall_limit: Positive | None = None
    """Seconds in which a child may make no step; loading a dataset or compiling counts, so leave room for that."""
    memory_limit_gb: Positive | None = None
    """Resident memory one child's process may use."""
    max_parameters: int | None = Field(None, ge=1)
    """Larger children are refused before any memory is touched."""
    log_limit_mb: Positive = 64
    """What one worker's children may print; the oldest of it goes when it is more."""
    stop_grace: float = Field(0, ge=0)
    """Seconds that children in flight may still take when the run is told to stop. Those that are not done by then are
    dropped, and trained when the run continues."""
    max_restarts: int = Field(10, ge=0)
    """Recoveries from lost shards or replicas before the run stops."""
