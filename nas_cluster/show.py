"""One architecture for people: what it is, how large, for which task."""

from __future__ import annotations

import re
from typing import Any

from nas_cluster.architectures import Chosen
from nas_cluster.core.errors import ConfigError
from nas_cluster.core.task import ImageTask, LanguageTask, Task

__all__ = ["describe", "parse_task"]

_IMAGES, _TEXT = ImageTask(32, 32, 3, 10), LanguageTask(10_000)


def describe(chosen: Chosen, task_text: str | None = None) -> dict[str, Any]:
    """Plain data: summary, canonical key, size for a task (CIFAR-10's or Penn Treebank's, when none is given)."""
    space = chosen.space.at(chosen.stage)
    default: Task = _TEXT if space.task_type is LanguageTask else _IMAGES
    task = default if task_text is None else parse_task(task_text, default)
    parameters, flops = space.size_of(chosen.architecture, task)
    return {
        "architecture": chosen.source,
        "space": space.kind,
        "summary": space.summary(chosen.architecture),
        "key": space.key(chosen.architecture),
        "task": str(task),
        "parameters": parameters,
        "multiply_accumulates": flops // 2,
    }


def parse_task(text: str, like: Task) -> Task:
    """A task as `show` takes it: 32x32x3/10 for images, 10000 for text. Raises ConfigError."""
    if isinstance(like, LanguageTask):
        if text.isdigit() and int(text) > 1:
            return LanguageTask(int(text))
        raise ConfigError(f"--task {text!r}: this space is for text; write the size of a vocabulary, 10000")
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)x([1-9]\d*)/([1-9]\d*)", text)
    if found is None:
        raise ConfigError(f"--task {text!r}: this space is for images; write HEIGHTxWIDTHxCHANNELS/CLASSES, 32x32x3/10")
    height, width, channels, classes = map(int, found.groups())
    return ImageTask(height, width, channels, classes)
