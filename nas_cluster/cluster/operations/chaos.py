"""Faults on purpose: kill parts of a running search at seeded random, and see how soon the run notices and goes on.

What is noticed is read from the run's journal, as any reader would; what is killed is reached through `Targets`, which
`ray_targets.RayTargets` gives for a Ray cluster. Seconds are measured here, so no two clocks are compared.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np

from nas_cluster.core.errors import ConfigError, RunError, nearest
from nas_cluster.core.seeds import stream
from nas_cluster.storage.record import RunRecord

__all__ = ["FAULTS", "ChaosReport", "Fault", "Injected", "Targets", "audit", "check_faults", "inject"]

Fault = Literal["child", "worker", "shard", "replica", "node_drain", "node_stop"]

FAULTS: tuple[Fault, ...] = get_args(Fault)

_EVIDENCE: dict[Fault, set[str]] = {
    "child": {"child_retried"},
    "worker": {"worker_lost"},
    "shard": {"part_lost"},
    "replica": {"part_lost"},
    "node_drain": {"worker_lost", "part_lost"},
    "node_stop": {"worker_lost", "part_lost"},
}
"""The journal's events that say that a fault was noticed."""
_POLL_SECONDS = 0.2
_GIVE_UP_SECONDS = 90.0


class Targets(Protocol):
    """The processes of one run, and the nodes that it can lose. Every method returns at once."""

    def parts(self, role: Literal["worker", "shard", "replica"]) -> Sequence[str]:
        """Names of the run's live processes in this role."""
        ...

    def nodes(self) -> Sequence[str]:
        """Live nodes that carry parts of the run, without the head, the coordinator and this process."""
        ...

    def kill(self, part: str) -> None:
        """`kill -9` of a process."""
        ...

    def kill_child(self, worker: str) -> bool:
        """`kill -9` of the process in which a worker trains children; False when it has none."""
        ...

    def drain(self, node: str) -> None:
        """Tell a node that it will be taken away and do so 30 s later, as a cloud does with a spot machine."""
        ...

    def stop(self, node: str) -> None:
        """`kill -9` of everything that Ray runs on a node. It comes back only if something starts it again."""
        ...


@dataclass(frozen=True)
class Injected:
    """One fault: what was done when, and after how many seconds it was noticed and children were done again."""

    at: float
    """Seconds after the injector started."""
    fault: Fault
    target: str
    noticed: float | None
    """None: not within 90 s, or nothing to notice (an idle child's process)."""
    went_on: float | None
    """Until the next child was committed after that."""


@dataclass(frozen=True)
class ChaosReport:
    """What was done to a run, and the account of its children at the end."""

    seed: int
    injected: tuple[Injected, ...]
    state: str
    """Of the run, when the injector stopped."""
    account: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def check_faults(names: Sequence[str]) -> list[Fault]:
    """The faults of these names. Raises ConfigError for one that is none."""
    for name in names:
        if name not in FAULTS:
            raise ConfigError(f"faults: no fault {name!r}; {nearest(name, FAULTS, what='fault')}")
    return [fault for fault in FAULTS if fault in names]


def audit(record: RunRecord) -> dict[str, int]:
    """The account of a run's children. All but `planned`, `done` and `duplicates_refused` must be 0 in a finished run.

    duplicates_refused: results that came twice, of which the second was not counted.
    """
    children, batches = record.children(), record.batches()
    numbers = Counter(row.child.number for row in children)
    events = Counter(event.kind for event in record.events())
    return {
        "planned": len(children),
        "done": sum(row.done for row in children),
        "not_done": sum(not row.done for row in children),
        "numbered_twice": sum(count - 1 for count in numbers.values()),
        "numbers_missing": max(numbers, default=-1) + 1 - len(numbers),
        "not_applied": sum(batch.applied_at is None for batch in batches),
        "duplicates_refused": events["duplicate_result"],
    }


def inject(
    directory: Path,
    targets: Targets,
    *,
    seed: int,
    minutes: float,
    every: float = 20.0,
    faults: Sequence[Fault] = ("child", "worker", "shard", "replica"),
    on_fault: Callable[[Injected], None] = lambda injected: None,
) -> ChaosReport:
    """Inject a random fault every `every` seconds (the first after that time) for `minutes`, or until the run ends.

    seed: of the choice of faults and targets. Raises RunError when nobody runs this run.
    """
    record = RunRecord.open(directory)
    if not _running(record):
        raise RunError(f"{directory}: is not running ({record.state()}), there is nothing to break")
    chance = stream(seed, "chaos")
    started = time.monotonic()
    end = started + minutes * 60
    injected: list[Injected] = []
    while time.monotonic() < end and _running(record):
        due = min(end, started + every * (len(injected) + 1))
        time.sleep(min(1.0, max(_POLL_SECONDS, due - time.monotonic())))
        if time.monotonic() < due or due >= end:
            continue
        watch = _Watch(record)
        chosen = _strike(targets, faults, chance)
        if chosen is None:
            time.sleep(1.0)  # nothing of the run is there at this moment: it is being restored
            continue
        at = time.monotonic() - started
        injected.append(Injected(at, *chosen, *watch.follow(chosen[0])))
        on_fault(injected[-1])
    return ChaosReport(seed, tuple(injected), record.state(), audit(record))


def _running(record: RunRecord) -> bool:
    sessions = record.sessions()
    return bool(sessions) and sessions[-1].ended is None


def _strike(targets: Targets, faults: Sequence[Fault], chance: np.random.Generator) -> tuple[Fault, str] | None:
    """Do one fault that has a target just now; which."""
    for fault in chance.permutation(np.array(faults)).tolist():
        if fault in ("node_drain", "node_stop"):
            candidates = targets.nodes()
        else:
            candidates = targets.parts("worker" if fault == "child" else fault)
        for target in chance.permutation(np.array(sorted(candidates), dtype=str)).tolist():
            if _do(targets, fault, target):
                return fault, target
    return None


def _do(targets: Targets, fault: Fault, target: str) -> bool:
    if fault == "child":
        return targets.kill_child(target)
    if fault == "node_drain":
        targets.drain(target)
    elif fault == "node_stop":
        targets.stop(target)
    else:
        targets.kill(target)
    return True


class _Watch:
    """Looks at the journal from just before a fault."""

    def __init__(self, record: RunRecord) -> None:
        self._record = record
        self._events = len(record.events())
        self._started = time.monotonic()

    def follow(self, fault: Fault) -> tuple[float | None, float | None]:
        """Seconds until the fault was noticed, and until a child was committed after that."""
        noticed: float | None = None
        done = self._record.counts()["done"]
        while (seconds := time.monotonic() - self._started) < _GIVE_UP_SECONDS:
            if noticed is None:
                if any(event.kind in _EVIDENCE[fault] for event in self._record.events()[self._events :]):
                    noticed, done = seconds, self._record.counts()["done"]
            elif self._record.counts()["done"] > done:
                return noticed, seconds
            if not _running(self._record):
                break
            time.sleep(_POLL_SECONDS)
        return noticed, None
