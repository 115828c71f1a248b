"""One architecture for people: what it is, how large, for which task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nas_cluster.architectures import Chosen
from nas_cluster.config import JobConfig
from nas_cluster.core.errors import ConfigError, DataError
from nas_cluster.core.task import Task

__all__ = ["describe"]


def describe(chosen: Chosen, task_text: str | None = None) -> dict[str, Any]:
    """Plain data: summary, canonical key, size for a task. When none is given that is the run's own, of an architecture
    of no run CIFAR-10's or Penn Treebank's.

    Raises ConfigError when `task_text` is no task that the space understands, DataError when the run's data cannot be
    read here.
    """
    space = chosen.space.at(chosen.first_number)
    if task_text is not None:
        task: Task | None = _task_named(task_text, space.understands)
    else:
        task = _usual_task(space.understands) if chosen.config is None else _task_of(chosen.config)
    parameters, flops = (None, None) if task is None else space.size_of(chosen.architecture, task)
    return {
        "architecture": chosen.source,
        "space": space.kind,
        "summary": space.summary(chosen.architecture),
        "key": space.key(chosen.architecture),
        "task": None if task is None else str(task),
        "parameters": parameters,
        "multiply_accumulates": None if flops is None else flops // 2,
    }


def _task_of(config: Mapping[str, Any]) -> Task | None:
    """The task of a run's children."""
    job = JobConfig.from_dict(config)
    try:
        data = job.arrays()
    except DataError as error:
        raise DataError(f"{error}; or say with --task for which task it is to be counted") from error
    return job.estimator.child_task(None if data is None else data.task)


def _usual_task(kinds: tuple[type[Task], ...]) -> Task | None:
    return next((task for kind in kinds if (task := kind.usual()) is not None), None)


def _task_named(text: str, kinds: tuple[type[Task], ...]) -> Task:
    """The task that the first kind which can read it makes of the text."""
    mistakes = []
    for kind in kinds:
        try:
            return kind.parse(text)
        except ConfigError as error:
            mistakes.append(str(error))
    raise ConfigError("\n".join(mistakes))
