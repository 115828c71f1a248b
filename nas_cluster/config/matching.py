"""Whether dataset, space and estimators are for the same kind of task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nas_cluster.core.component import lacks
from nas_cluster.core.task import Task, words_of
from nas_cluster.datasets import Dataset
from nas_cluster.estimators import Estimator
from nas_cluster.spaces import SearchSpace

__all__ = ["mismatched_tasks"]


def mismatched_tasks(
    space: SearchSpace[Any], estimators: Mapping[str, Estimator | None], dataset: Dataset | None
) -> list[str]:
    """One line for each section that does not understand the task of the data it is given, or that lacks data.

    estimators: by section. One that uses the dataset must understand its task, as the space must; one that brings data
    of its own says what children are built for.
    """
    found = []
    for section, estimator in estimators.items():
        if estimator is None:
            continue
        if not estimator.uses_data:
            try:
                task = estimator.child_task(None)
            except TypeError as error:
                if "abstract class" not in str(error):
                    raise
                found.append(f"{section}: the task of {estimator.kind!r} cannot be made: {error}")
                continue
            if task is not None:
                found += _misunderstood({"space": space}, type(task), f"{section} {estimator.kind!r}")
        elif dataset is None:
            found.append(f"dataset: {section} {estimator.kind!r} needs one")
        elif (lacking := lacks(dataset.task_type)) is not None:
            found.append(f"dataset: the task of {dataset.kind!r} cannot be made: {lacking}")
        else:
            parts: dict[str, SearchSpace[Any] | Estimator] = {"space": space, section: estimator}
            found += _misunderstood(parts, dataset.task_type, f"dataset {dataset.kind!r}")
    return list(dict.fromkeys(found))


def _misunderstood(parts: Mapping[str, SearchSpace[Any] | Estimator], kind: type[Task], source: str) -> list[str]:
    return [
        f"{section}: {part.kind!r} is for {words_of(part.understands)}, {source} is {kind.word}"
        for section, part in parts.items()
        if not issubclass(kind, part.understands)
    ]
