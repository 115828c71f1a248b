"""What every search space promises."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_cluster.core.errors import InvalidArchitecture
from nas_cluster.core.task import Task
from nas_cluster.spaces import SearchSpace
from nas_cluster.testing.outputs import checked_outputs, training_outputs

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["check_shared", "check_space"]


def check_space(
    space: SearchSpace[Any], *, samples: int = 20, tasks: Sequence[Task] | None = None, seed: int = 0
) -> None:
    """Decisions, round trips, keys, mutation, children: for `samples` random architectures; shared weights for three.

    tasks: what children are built for; by default the examples of every kind that the space `understands`.
    """
    tasks = _examples(space) if tasks is None else tasks
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
    if space.shares_weights:
        check_shared(space, tasks[0], samples=3)
    for wrong in (spec.random(rng)[:-1], (-1,) * len(spec), tuple(d.cardinality for d in spec)):
        _refuses(space, wrong)


def _examples(space: SearchSpace[Any]) -> tuple[Task, ...]:
    tasks = tuple(task for kind in space.understands for task in kind.examples())
    assert tasks, "say with `tasks` what children are built for: the space's tasks have no `examples`"
    return tasks


def _check_round_trips(space: SearchSpace[Any], tokens: tuple[int, ...], architecture: Any) -> None:
    assert space.decode(space.encode(architecture)) == architecture, "decode(encode(a)) must be a"
    assert space.encode(architecture) == tokens, "encode(decode(t)) must be t"
    data = json.loads(json.dumps(architecture.to_json()))
    assert space.parse(data) == architecture, "an architecture must survive JSON"
    canonical = space.canonical(architecture)
    assert space.canonical(canonical) == canonical, "canonical must be idempotent"
    assert space.decode(space.encode(canonical)) == canonical, "the canonical form must be in the space"
    assert space.key(canonical) == space.key(architecture), "the key is that of the canonical form"
    assert space.summary(architecture), "a summary must say something"


def _check_child(space: SearchSpace[Any], architecture: Any, task: Task) -> None:
    import torch

    torch.manual_seed(0)
    try:
        child = space.build_child(architecture, task)
    except InvalidArchitecture:
        return
    torch.manual_seed(0)
    twin = space.build_child(architecture, task)
    with torch.device("meta"):
        shape = space.build_child(architecture, task)
    for a, b, c in zip(child.parameters(), twin.parameters(), shape.parameters(), strict=True):
        assert torch.equal(a, b), "equal seeds must build equal children"
        assert a.shape == c.shape
        assert c.is_meta, "on the meta device a child must not touch memory"
    with torch.no_grad():
        shapes = [part.shape for part in task.run_example(child.eval(), batch=2)]
    with torch.device("meta"):
        counted = [part.shape for part in task.run_example(shape.eval(), batch=2)]
    assert counted == shapes, "a child must run on the meta device: its cost is counted there"
    outputs = checked_outputs(task, child.train())
    assert all(bool(torch.isfinite(part).all()) for part in outputs), "a fresh child must give finite outputs"
    sum(part.square().sum() for part in outputs).backward()  # type: ignore[union-attr]
    missing = [name for name, p in child.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing, f"parameters without gradient: {missing}"


def check_shared(space: SearchSpace[Any], task: Task | None = None, *, samples: int = 3, seed: int = 0) -> None:
    """Shared weights: for `samples` random architectures a child with the shared tensors computes the same; what is
    shared by reference, or generated, gets that child's gradients; no other does, and a pass changes nothing."""
    import torch

    from nas_cluster.training.shared import Bound

    task = _examples(space)[0] if task is None else task
    alone = space.scaled(space.shared_form)
    torch.manual_seed(seed)
    shared: Any = space.build_shared(task).double().train()
    rng = np.random.default_rng(seed)
    named = dict(shared.named_parameters())
    generator = {f"generator.{n}" for n, _ in shared.generator.named_parameters()} if space.generates_weights else set()
    before = {name: tensor.clone() for name, tensor in shared.state_dict().items()}
    for _ in range(samples):
        architecture = space.decode(space.random(rng))
        child: Any = alone.build_child(architecture, task).double().train()
        torch.manual_seed(seed)
        tensors = shared.tensors_of(architecture)
        own = dict(child.named_parameters())
        assert set(tensors) == set(own), f"tensors_of differs from the child in {sorted(set(tensors) ^ set(own))[:5]}"
        with torch.no_grad():
            for name, parameter in own.items():
                assert tensors[name].shape == parameter.shape, name
                parameter.copy_(tensors[name])
        for parameter in named.values():
            parameter.grad = None
        outputs = []
        for network in (child, Bound(shared, architecture)):
            with _double_precision():
                outputs.append(training_outputs(task, network, seed))
            sum(part.square().sum() for part in outputs[-1]).backward()  # type: ignore[union-attr]
        for one, together in zip(*outputs, strict=True):
            assert torch.allclose(one, together, rtol=1e-9, atol=1e-11), "the child and its part of the whole differ"
        _check_gradients(named, generator, tensors, own)
    for name, tensor in shared.state_dict().items():
        assert torch.equal(tensor, before[name]), f"a pass changed {name}"


def _check_gradients(
    named: dict[str, Tensor], generator: set[str], tensors: dict[str, Tensor], own: dict[str, Tensor]
) -> None:
    """The gradients of all shared parameters against those that the child's own imply: added up over all views of one
    parameter, and led through the generator's graph."""
    import torch

    owner = {p.untyped_storage().data_ptr(): name for name, p in named.items() if name not in generator}
    expected: dict[str, Tensor] = {}
    gradients_of = {name: p.grad for name, p in own.items() if p.grad is not None}
    generated = []
    for name, tensor in tensors.items():
        source = owner.get(tensor.untyped_storage().data_ptr())
        if source is None:
            assert generator and tensor.requires_grad, f"{name} is a copy"
            generated.append(name)
            continue
        whole = expected.setdefault(source, torch.zeros_like(named[source]))
        part = whole.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
        part += gradients_of[name]
    if generated:
        sources = [named[name] for name in sorted(generator)]
        gradients = torch.autograd.grad([tensors[n] for n in generated], sources, [gradients_of[n] for n in generated])
        expected |= dict(zip(sorted(generator), gradients, strict=True))
    for name, parameter in named.items():
        if name not in expected:
            assert parameter.grad is None, f"{name} is not used, but has a gradient"
            continue
        assert parameter.grad is not None, f"{name} has no gradient"
        assert torch.allclose(parameter.grad, expected[name], rtol=1e-7, atol=1e-9), f"{name}: another gradient"


@contextmanager
def _double_precision() -> Iterator[None]:
    """What is drawn is double: the networks whose outputs and gradients are compared are."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _refuses(space: SearchSpace[Any], tokens: tuple[int, ...]) -> None:
    try:
        space.decode(tokens)
    except ValueError:
        return
    raise AssertionError(f"decode must refuse {tokens} with ValueError")
