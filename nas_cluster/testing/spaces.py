"""What every search space promises."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_cluster.core.errors import InvalidArchitecture
from nas_cluster.core.task import ImageTask, LanguageTask, Task
from nas_cluster.spaces import SearchSpace

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["check_shared", "check_space"]

_TASKS: dict[type[Task], tuple[Task, ...]] = {
    ImageTask: (ImageTask(8, 8, 1, 10), ImageTask(17, 23, 3, 4), ImageTask(32, 32, 3, 10)),
    LanguageTask: (LanguageTask(2), LanguageTask(50)),
}


def check_space(
    space: SearchSpace[Any], *, samples: int = 20, tasks: Sequence[Task] | None = None, seed: int = 0
) -> None:
    """Decisions, round trips, keys, mutation, children: for `samples` random architectures; shared weights for three.

    tasks: what children are built for; by default some of the space's `task_type`.
    """
    tasks = _TASKS[space.task_type] if tasks is None else tasks
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
    logits = _image_logits(child, task) if isinstance(task, ImageTask) else _language_logits(child, shape, task)
    assert bool(torch.isfinite(logits).all()), "a fresh child must give finite logits"
    logits.square().sum().backward()  # type: ignore[no-untyped-call]
    missing = [name for name, p in child.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing, f"parameters without gradient: {missing}"


def _image_logits(child: nn.Module, task: ImageTask) -> Tensor:
    """Logits of two images, those of an auxiliary classifier beside them."""
    import torch

    from nas_cluster.nn.protocols import training_logits

    images = torch.randn(2, task.channels, task.height, task.width)
    with torch.no_grad():
        assert child.eval()(images).shape == (2, task.classes)
    given = [logits for logits in training_logits(child.train(), images) if logits is not None]
    assert all(logits.shape == (2, task.classes) for logits in given)
    return torch.stack(given)


def _language_logits(child: Any, meta: Any, task: LanguageTask) -> Tensor:
    """The contract of `LanguageTask`; `meta` is the same child on the meta device."""
    import torch

    steps, batch = 6, 3
    tokens_TB = torch.randint(task.vocabulary, (steps, batch))
    start = child.initial_state(batch)
    assert isinstance(start, tuple), "a state is a tuple of tensors"
    features_TBE, state = child(tokens_TB, start)
    assert features_TBE.shape == (steps, batch, child.decoder.in_features)
    assert child.decoder.out_features == task.vocabulary
    assert [part.shape for part in state] == [part.shape for part in start], "a state keeps its shape"
    assert [part.dtype for part in state] == [part.dtype for part in start]
    shapes = meta(tokens_TB.to("meta"), meta.initial_state(batch))
    assert shapes[0].shape == features_TBE.shape, "a child must run on the meta device: its cost is counted there"
    training = child.training
    child.eval()
    with torch.no_grad():
        whole_TBE, _ = child(tokens_TB, start)
        first_TBE, middle = child(tokens_TB[:2], start)
        second_TBE, _ = child(tokens_TB[2:], middle)
    child.train(training)
    together_TBE = torch.cat([first_TBE, second_TBE])
    assert torch.allclose(whole_TBE, together_TBE, rtol=1e-4, atol=1e-5), "the state must carry all that was read"
    logits: Tensor = child.decoder(features_TBE)
    return logits


def check_shared(space: SearchSpace[Any], task: Task | None = None, *, samples: int = 3, seed: int = 0) -> None:
    """Shared weights: for `samples` random architectures a child with the shared tensors computes the same; what is
    shared by reference, or generated, gets that child's gradients; no other does, and a pass changes nothing."""
    import torch

    task = _TASKS[space.task_type][0] if task is None else task
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
        inputs = _inputs(task)
        outputs = []
        for network, chosen in ((child, ()), (shared, (architecture,))):
            torch.manual_seed(seed)
            outputs.append(_outputs(network, inputs, chosen))
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


def _inputs(task: Task) -> Tensor:
    import torch

    if isinstance(task, ImageTask):
        return torch.randn(4, task.channels, task.height, task.width, dtype=torch.float64)
    return torch.randint(task.vocabulary, (6, 3))


def _outputs(network: Any, inputs: Tensor, chosen: tuple[Any, ...]) -> list[Tensor]:
    """What a child (nothing chosen) or a shared network gives, the auxiliary logits included."""
    from nas_cluster.nn.protocols import HasTrainingLogits

    if inputs.is_floating_point():
        if not isinstance(network, HasTrainingLogits):
            return [network(inputs, *chosen)]
        return [logits for logits in network.training_logits(inputs, *chosen) if logits is not None]
    features_TBE, state = network(inputs, network.initial_state(inputs.shape[1]), *chosen)
    return [network.decoder(features_TBE), *state]


def _refuses(space: SearchSpace[Any], tokens: tuple[int, ...]) -> None:
    try:
        space.decode(tokens)
    except ValueError:
        return
    raise AssertionError(f"decode must refuse {tokens} with ValueError")
