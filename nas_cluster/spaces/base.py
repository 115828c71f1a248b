"""The interface of a search space. A space is plain data; torch is imported only when a child is built."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, Self, TypeVar

import numpy as np

from nas_cluster.core.component import Component, Options, validated
from nas_cluster.core.decisions import DecisionSpec, Tokens
from nas_cluster.core.drawing import Drawing
from nas_cluster.core.errors import ConfigError, nearest
from nas_cluster.core.task import ImageTask, Task

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Architecture", "SearchSpace", "SharedNetwork"]


class Architecture(Options):
    """A decoded architecture: frozen, JSON-able, comparable. Each space has its own subclass."""

    def to_json(self) -> dict[str, Any]:
        """Plain data for the journal and for people."""
        return self.model_dump(mode="json")


A = TypeVar("A", bound=Architecture)


class SharedNetwork(Protocol):
    """What `SearchSpace.build_shared` returns, a torch module called with an architecture.

    Images: `shared(images, architecture)` gives logits, and `training_logits(images, architecture)`, where it exists,
    those and the auxiliary ones; a buffer `progress` means what it means in a child. Text: `shared(tokens_TB, state,
    architecture)` gives (features_TBE, state), with `decoder` and `initial_state(B)` as a child has them.

    A child built alone (in the space's `shared_form`) with these tensors computes the same in training mode, dropout
    aside. Only what the architecture uses is computed, and only that gets a gradient; nothing but parameters is kept
    from one call to the next (batch norms use the statistics of the batch, also in evaluation).

    Where the space `generates_weights`, some tensors are the output of a submodule `generator` that is told the
    architecture, and its parameters are part of every architecture. `generate(architecture)` gives that output, which a
    call takes as a further argument instead of making its own. Noise comes from torch's global generator.
    """

    def tensors_of(self, architecture: Any) -> dict[str, Tensor]:
        """For every parameter of the child of that architecture, by its name, the shared tensor or a view of one; a
        generated one with its graph."""
        ...


class SearchSpace(Component, ABC, Generic[A]):
    """A set of architectures, described to the controller as a list of decisions.

    A new space gives `architecture_type`, `decisions`, `decode`, `encode` and `build_child`; random sampling,
    one-decision mutation, canonical keys and the exact size come from here. Options that change how children are built
    and not what is decided stand in a field `child` of their own, a group of Options. The conformance suite checks
    every property stated below.
    """

    package: ClassVar[str] = "nas_cluster.spaces"
    word: ClassVar[str] = "space"
    architecture_type: ClassVar[type[Architecture]]
    understands: ClassVar[tuple[type[Task], ...]] = (ImageTask,)
    """What its children can learn, subclasses included; a config that gives them another task is refused."""
    shares_weights: ClassVar[bool] = False
    """Whether `build_shared` gives a network of which every child is a part."""
    generates_weights: ClassVar[bool] = False
    """Whether that network has a `generator` (`SharedNetwork`)."""
    shared_form: ClassVar[Mapping[str, Any]] = {}
    """`child` options with which a child built alone computes what its part of the shared network does; others may
    train better alone."""

    @abstractmethod
    def decisions(self) -> DecisionSpec:
        """The T decisions, in the order in which the controller takes them. Equal for equal options."""

    @abstractmethod
    def decode(self, tokens: Sequence[int]) -> A:
        """Tokens (T) to an architecture. Raises ValueError for tokens out of range; never for tokens in range."""

    @abstractmethod
    def encode(self, architecture: A) -> Tokens:
        """Inverse of `decode`: decode(encode(a)) == a for every architecture of this space.

        Raises ValueError, naming what does not fit, for an architecture outside the space.
        """

    @abstractmethod
    def build_child(self, architecture: A, task: Any) -> nn.Module:
        """The child network, freshly initialised from torch's global generator. task: one that the space `understands`.

        Raises InvalidArchitecture when this architecture cannot work for this task (a map that shrinks to nothing).
        """

    def build_shared(self, task: Any) -> nn.Module:
        """The network of all children, freshly initialised from torch's global generator: `SharedNetwork` says what it
        can do. Raises ConfigError where the space, or its `child` options, give children no weights in common."""
        raise ConfigError(f"space {self.kind!r} has no network of shared weights")

    def size_of(self, architecture: A, task: Task) -> tuple[int, int]:
        """(trainable parameters, floating-point operations of one example's forward pass), counted on the meta
        device: no memory is touched. A multiplication with its addition counts as two. Raises InvalidArchitecture."""
        import torch
        from torch.utils.flop_counter import FlopCounterMode

        with torch.device("meta"):
            model = self.build_child(architecture, task).eval()
            with FlopCounterMode(display=False) as counter:
                task.run_example(model)
        return sum(p.numel() for p in model.parameters() if p.requires_grad), counter.get_total_flops()

    def parse(self, data: Mapping[str, Any]) -> A:
        """The architecture that `to_json` wrote."""
        return self.architecture_type.model_validate(dict(data))  # type: ignore[return-value]

    def canonical(self, architecture: A) -> A:
        """The representative of all architectures that compute the same function family. Idempotent."""
        return architecture

    def key(self, architecture: A) -> str:
        """Canonical key: equal for architectures with equal `canonical` form, in every process and version."""
        text = json.dumps(self.canonical(architecture).to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def random(self, rng: np.random.Generator) -> Tokens:
        """Tokens (T) of a random architecture: those of `decisions().random`, uniform unless the space says otherwise
        there, so that strategies draw the same."""
        return self.decisions().random(rng)

    def mutate(self, tokens: Sequence[int], rng: np.random.Generator) -> Tokens:
        """Tokens that differ from `tokens` in exactly one decision."""
        return self.decisions().mutate(tokens, rng)

    def at(self, number: int) -> Self:
        """The space from which a minibatch is sampled whose first child has this number (`Child.first_number`): another
        one when the space grows during the search. Its groups of decisions stay, so that the controller goes on."""
        return self

    def during(self, progress: float) -> Self:
        """The space from which a phase draws random architectures when this share of the phases, 0 to 1, is over:
        another distribution over the same architectures, where training begins with small ones."""
        return self

    def scaled(self, changes: Mapping[str, Any]) -> Self:
        """This space with other `child` options: the same decisions and architectures, built at another size (more
        filters, a stem for larger images, another dropout). Raises ConfigError for an option it does not have."""
        options: Options | None = getattr(self, "child", None)
        if not changes:
            return self
        if options is None:
            raise ConfigError(f"scale: space {self.kind!r} builds children of one size only")
        child = validated(type(options), {**options.model_dump(), **changes}, where="scale")
        return self.model_copy(update={"child": child})

    def check(self, task: Any) -> None:
        """Raise ConfigError when no architecture of this space fits the task."""

    def draw(self, architecture: A) -> list[Drawing]:
        """Pictures of an architecture for the report; empty when the space draws nothing."""
        return []

    def summary(self, architecture: A) -> str:
        """One short line that tells architectures apart in a table."""
        return self.key(architecture)

    @classmethod
    def named(cls) -> Mapping[str, A]:
        """Published architectures, loadable by name wherever an architecture is expected."""
        return {}

    def load_named(self, name: str) -> A:
        """A published architecture. Raises ConfigError with the nearest name."""
        known = self.named()
        if name not in known:
            raise ConfigError(f"space {self.kind!r} has no architecture {name!r}: {nearest(name, known, what='name')}")
        return known[name]
