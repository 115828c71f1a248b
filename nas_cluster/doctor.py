"""What a cluster is and what it could run: versions, cards, storage, clocks, authentication, room for children."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import platform
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nas_cluster.bundle import JOB_FILE, pack, pack_package
from nas_cluster.cluster.session.backend import pool_shape
from nas_cluster.config import JobConfig
from nas_cluster.core.errors import UserError
from nas_cluster.job import make_backend

__all__ = ["answer_line", "check_storage", "examine", "examine_through_jobs", "findings"]

_ANSWER = "doctor: "
_JOB_SECONDS = 600.0
_CLOCK_SECONDS = 1.0
"""More than this confuses people who compare logs; nothing of a run depends on it."""


def examine(config: JobConfig | None) -> dict[str, Any]:
    """Plain data about the cluster at RAY_ADDRESS, or of this machine."""
    backend = make_backend(local=False)
    backend.connect()
    from nas_cluster.cluster.operations.probe import check_storage, probe

    try:
        nodes = [asdict(report) for report in probe()]
        data: dict[str, Any] = {
            "authentication": all(node["token_wanted"] for node in nodes),
            "nodes": nodes,
        }
        if config is not None:
            topology = config.topology
            wanted = topology.controller_replicas * topology.children_per_replica
            data["room"] = {"wanted": topology.slots or wanted, "resources": topology.resources.amounts}
            try:
                shape = pool_shape(config, capacity=backend.capacity(config), wanted=wanted)
                data["room"]["at_once"] = shape.workers * shape.slots_per_worker
            except UserError as error:
                data["room"] |= {"at_once": 0, "reason": str(error)}
            try:
                data["storage"] = {"path": config.storage_path, "shared": check_storage(config)}
            except UserError as error:
                data["storage"] = {"path": config.storage_path, "reason": str(error)}
        return data
    finally:
        asyncio.run(backend.close())


def check_storage(config: JobConfig) -> str:
    """One line about storage that all nodes of the cluster share. Raises ConfigError when they do not."""
    backend = make_backend(local=False)
    backend.connect()
    from nas_cluster.cluster.operations.probe import check_storage as check

    try:
        return f"storage_path: {check(config)}"
    finally:
        asyncio.run(backend.close())


def examine_through_jobs(config: JobConfig | None, address: str, include: Sequence[Path] = ()) -> dict[str, Any]:
    """The same of a cluster of which only the dashboard's port is reached: asked by a short job."""
    from nas_cluster.cluster.operations.jobs import Jobs

    jobs = Jobs(address)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "doctor"
        if config is None:
            pack_package(folder)
        else:
            pack(config, folder, include)
        command = "exec python -m nas_cluster.cli doctor --here" + ("" if config is None else f" {JOB_FILE}")
        printed = jobs.ask(command, folder, seconds=_JOB_SECONDS)
    line = next(line for line in printed.splitlines() if line.startswith(_ANSWER))
    data: dict[str, Any] = json.loads(line.removeprefix(_ANSWER))
    data["authentication"] = jobs.authentication_on()
    return data


def answer_line(data: dict[str, Any]) -> str:
    """How the job that was asked gives its answer."""
    return _ANSWER + json.dumps(data)


def findings(data: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(ok | warning | error, what, in words) for people, the worst included."""
    found = []

    def say(level: str, what: str, words: str) -> None:
        found.append((level, what, words))

    nodes = data["nodes"]
    totals = {name: sum(node["resources"].get(name, 0) for node in nodes) for name in ("CPU", "GPU")}
    say("ok", "nodes", f"{len(nodes)} with {totals['CPU']:g} CPU and {totals['GPU']:g} GPU")
    for node in nodes:
        if node["error"]:
            say("error", node["address"], node["error"])
    for name, here in (("ray", _version("ray")), ("torch", _version("torch")), ("python", platform.python_version())):
        there = sorted({node["versions"][name] for node in nodes if node["versions"]})
        words = f"{', '.join(there)} on the cluster, {here} here"
        alike = there == [here]
        level = "error" if "missing" in there or len(there) > 1 else "ok" if alike else "warning"
        say(level, name, words if not alike else f"{here}, here and on every node")
    cards = [card for node in nodes for card in node["gpus"]]
    if cards or totals["GPU"]:
        kinds = ", ".join(f"{cards.count(kind)} {kind}" for kind in sorted(set(cards))) or "none seen by nvidia-smi"
        say("ok" if len(cards) == totals["GPU"] else "warning", "GPUs", f"{kinds}; Ray counts {totals['GPU']:g}")
    ahead = max(nodes, key=lambda node: abs(node["clock_seconds"]))["clock_seconds"]
    say("ok" if abs(ahead) <= _CLOCK_SECONDS else "warning", "clocks", f"at most {abs(ahead):.3f} s apart")
    if data["authentication"]:
        say("ok", "authentication", "a token is wanted")
    else:
        say("warning", "authentication", "off: whoever reaches the cluster may run code on it (RAY_AUTH_MODE=token)")
    if "storage" in data:
        shared = data["storage"].get("shared")
        say("ok" if shared else "error", "storage", shared or data["storage"]["reason"].removeprefix("storage_path: "))
    if "room" in data:
        room = data["room"]
        each = ", ".join(f"{name} {amount:g}" for name, amount in room["resources"].items())
        words = room.get("reason") or f"{room['at_once']} children at once of {room['wanted']} wanted, each {each}"
        say("error" if not room["at_once"] else "ok", "room", words)
    return found


def _version(name: str) -> str:
    return importlib.metadata.version(name)
