"""Reads what a run recorded, with plain SQLite and the columns of version 0.1.0: later versions keep them."""

import contextlib
import json
import re
import sqlite3
from pathlib import Path

import torch

CHILD = (
    "tokens",
    "architecture",
    "key",
    "seed",
    "arm",
    "status",
    "cause",
    "metric",
    "reward",
    "log_prob",
    "cached_from",
)
BATCH = ("base_version", "controller_hash", "epochs", "outcome")
TRAINING = ("architecture", "rank", "reward", "test_metric")
SAMPLED = ("tokens", "architecture", "key", "seed", "arm")
"""What of a child does not depend on the type of CPU, as long as nothing is trained and rewards are exact."""


def rows(directory, query):
    """The rows of a query on a run's journal, as dicts."""
    with contextlib.closing(sqlite3.connect(Path(directory) / "journal.sqlite")) as db:
        db.row_factory = sqlite3.Row
        return [dict(row) for row in db.execute(query)]


def trace(directory):
    """All that a continued run must have in common with one never broken. What belongs to a child is under its number,
    a minibatch is under its replica and update. Plain data, equal to itself after JSON."""
    children = {str(row["number"]): _only(row, CHILD) for row in rows(directory, "SELECT * FROM children")}
    batches = {
        f"{row['replica']}-{row['update']}": _only(row, BATCH) for row in rows(directory, "SELECT * FROM batches")
    }
    phases = {
        str(row["phase"]): {name: json.loads(row["result"])[name] for name in ("digest", "loss")}
        for row in rows(directory, "SELECT * FROM phases WHERE result IS NOT NULL")
    }
    trainings = {
        f"{row['stage']} {row['source']} {row['seed']}": _only(row, TRAINING)
        for row in rows(directory, "SELECT * FROM trainings")
    }
    return {"children": children, "batches": batches, "phases": phases, "trainings": trainings}


def committed(directory):
    """Every child that counts, with all its columns."""
    return {row["child_id"]: row for row in rows(directory, "SELECT * FROM children WHERE status IS NOT NULL")}


def computer():
    """What the last bits of a float32 sum depend on."""
    found = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    model = found[1] if found else "unknown"
    return {"cpu": model, "capability": torch.backends.cpu.get_cpu_capability(), "torch": torch.__version__}


def _only(row, names):
    return {name: row[name] for name in names}
