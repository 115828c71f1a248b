"""What every search space promises."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from nas_cluster.core.errors import InvalidArchitecture
from nas_cluster.core.task import ImageTask
from nas_cluster.spaces import SearchSpace

__all__ = ["check_space"]

_TASKS = (ImageTask(8, 8, 1, 10), ImageTask(17, 23, 3, 4), ImageTask(32, 32, 3, 10))


def check_space(
    space: SearchSpace[Any], *, samples: int = 20, tasks: Sequence[ImageTask] = _TASKS, seed: int = 0
) -> None:
    """Decisions, round trips, keys, mutation, children: for `samples` random architectures."""
    rng = np.random.default_rng(0)
    spec = space.decisions()
    again = type(space).model_validate(space.model_dump(mode="json"))
    assert again == space, "a space must survive model_dump and model_validate"
    assert again.decisions() == spec, "equal options must give equal decisions"
    for number in range(samples):
        tokens = space.random(rng)
        assert spec.check(tokens) == tokens
        architecture = space.decode(tokens)
        _check_round_trips(space, tokens, architecture)
        mutated = space.mutate(tokens, rng)
        assert sum(a != b for a, b in zip(tokens, mutated, strict=True)) == 1, "a mutation changes one decision"
        if number < 3:
            for task in tasks:
                _check_child(space, architecture, task)
            for drawing in space.draw(architecture):
                known = [node.id for node in drawing.nodes]
                assert len(set(known)) == len(known), "node ids must be unique"
                assert all(edge.source in known and edge.target in known for edge in drawing.edges)
    for wrong in (spec.random(rng)[:-1], (-1,) * len(spec), tuple(d.cardinality for d in spec)):
        _refuses(space, wrong)


def _check_round_trips(space: SearchSpace[Any], tokens: tuple[int, ...], architecture: Any) -> None:
    assert space.decode(space.encode(architecture)) == architecture, "decode(encode(a)) must be a"
    assert space.encode(architecture) == tokens, "encode(decode(t)) must be t"
    data = json.loads(json.dumps(architecture.to_json()))
    assert space.parse(data) == architecture, "an architecture must survive JSON"
    canonical = space.canonical(architecture)
    assert space.canonical(canonical) == canonical, "canonical must be idempotent"
    assert space.key(canonical) == space.key(architecture), "the key is that of the canonical form"
    assert space.summary(architecture), "a summary must say something"


def _check_child(space: SearchSpace[Any], architecture: Any, task: ImageTask) -> None:
    import torch

    from nas_cluster.nn.auxiliary import training_logits

    torch.manual_seed(0)
    try:
        child = space.build_child(architecture, task)
    except InvalidArchitecture:
        return
    images = torch.randn(2, task.channels, task.height, task.width)
    given = [logits for logits in training_logits(child, images) if logits is not None]
    for logits in given:
        assert logits.shape == (2, task.classes)
        assert bool(torch.isfinite(logits).all()), "a fresh child must give finite logits"
    torch.stack(given).square().sum().backward()  # type: ignore[no-untyped-call]
    missing = [name for name, p in child.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing, f"parameters without gradient: {missing}"
    with torch.no_grad():
        assert child.eval()(images).shape == (2, task.classes)
    torch.manual_seed(0)
    twin = space.build_child(architecture, task)
    with torch.device("meta"):
        shape = space.build_child(architecture, task)
    for a, b, c in zip(child.parameters(), twin.parameters(), shape.parameters(), strict=True):
        assert torch.equal(a, b), "equal seeds must build equal children"
        assert a.shape == c.shape


def _refuses(space: SearchSpace[Any], tokens: tuple[int, ...]) -> None:
    try:
        space.decode(tokens)
    except ValueError:
        return
    raise AssertionError(f"decode must refuse {tokens} with ValueError")
