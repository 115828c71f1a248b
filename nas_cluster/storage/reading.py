"""SQL rows to the rows of `rows.py`, whatever version of the journal they are from."""

from __future__ import annotations

import base64
import json
import sqlite3
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from nas_cluster.core.errors import RunError
from nas_cluster.core.evaluation import Child, ChildId, Evaluation
from nas_cluster.core.phases import PhaseResult
from nas_cluster.core.version_1 import read_evaluation
from nas_cluster.storage.rows import BatchRow, ChildRow, PhaseRow, SessionRow, TrainingRow

__all__ = ["batch_row", "child_row", "json_in_sql", "phase_row", "read_json", "session_row", "training_row"]

_OLD_MARK = "zlib:"


def read_json(text: str | bytes) -> Any:
    """What a field of the journal holds. Raises RunError when that is no JSON: somebody else has written it."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise RunError(
            f"the journal is damaged ({text[:40]!r} is not JSON: {error}); restore it from a backup"
        ) from error


@contextmanager
def json_in_sql() -> Iterator[None]:
    """The same for what SQLite's own functions read. Raises RunError."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if "malformed JSON" not in str(error):
            raise
        raise RunError(f"the journal is damaged ({error}); restore it from a backup") from error


def session_row(row: sqlite3.Row) -> SessionRow:
    """A row of `sessions`. Its kind is called phase there, and its term epoch: so version 1 called them."""
    data = dict(row)
    return SessionRow(term=data.pop("epoch"), kind=data.pop("phase"), machine=data.pop("host"), **data)


def phase_row(row: sqlite3.Row) -> PhaseRow:
    """A row of `phases`."""
    data = dict(row)
    text, packed = data.pop("tokens"), data.pop("packed_tokens", None)
    if packed is None:  # of version 1, which packed long texts only, and into a text
        packed = base64.b64decode(text.removeprefix(_OLD_MARK)) if text.startswith(_OLD_MARK) else None
    steps = read_json(text if packed is None else zlib.decompress(packed))
    tokens = tuple(tuple(tuple(one) for one in step) for step in steps)
    result = None if row["result"] is None else PhaseResult.from_json(read_json(row["result"]))
    return PhaseRow(**{**data, "tokens": tokens, "result": result})


def training_row(row: sqlite3.Row) -> TrainingRow:
    """A row of `trainings`."""
    data, evaluation, metric = dict(row), None, None
    architecture, settings = read_json(data["architecture"]), read_json(data["settings"])
    if data["evaluation"] is not None:
        found = read_json(data["evaluation"])
        metric = found["metric"]
        evaluation = read_evaluation(found, settings.get("estimator", {}))
    read = {"architecture": architecture, "settings": settings, "evaluation": evaluation, "metric": metric}
    return TrainingRow(**{**data, **read})


def batch_row(row: sqlite3.Row) -> BatchRow:
    """A row of `batches`."""
    data = dict(row)
    learned, verdict, scalars = data.pop("epochs"), data.pop("outcome"), read_json(data.pop("scalars"))
    return BatchRow(**data, learning_epochs=learned, verdict=verdict, scalars=scalars)


def child_row(row: sqlite3.Row, estimator: Mapping[str, Any]) -> ChildRow:
    """A row of `children`. estimator: the job's section, for what version 1 does not say."""
    child = Child(
        child_id=ChildId(row["replica"], row["update"], row["index"]),
        number=row["number"],
        tokens=tuple(read_json(row["tokens"])),
        architecture=read_json(row["architecture"]),
        key=row["key"],
        seed=row["seed"],
    )
    return ChildRow(
        child=child,
        arm=row["arm"],
        log_prob=row["log_prob"],
        entropy=row["entropy"],
        step_log_probs=None if row["step_log_probs"] is None else tuple(read_json(row["step_log_probs"])),
        planned_at=row["planned_at"],
        evaluation=None if row["status"] is None else _evaluation(row, estimator),
        metric=row["metric"],
        reward=row["reward"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        worker=row["worker"],
        attempts=row["attempts"],
        cached_from=row["cached_from"],
    )


def _evaluation(row: sqlite3.Row, estimator: Mapping[str, Any]) -> Evaluation:
    about = {"status": row["status"], "cause": row["cause"], "message": row["message"]}
    data = {**about, "details": read_json(row["details"])}
    if "metrics" in row.keys() and row["metrics"] is not None:  # noqa: SIM118  (no mapping)
        return Evaluation(metrics=read_json(row["metrics"]), **data)
    data |= {"metric": row["metric"], "parameters": row["parameters"], "seconds": row["seconds"]}
    return read_evaluation(data, estimator)
