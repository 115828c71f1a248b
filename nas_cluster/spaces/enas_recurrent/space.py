"""ENAS's recurrent search space: an earlier node and an activation per node (Pham et al. 2018, section 2.1)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from nas_cluster.core.decisions import Decision, DecisionSpec, Tokens
from nas_cluster.core.drawing import Drawing, Edge, Node
from nas_cluster.core.task import LanguageTask, Task
from nas_cluster.spaces._words import named_once
from nas_cluster.spaces.base import Architecture, SearchSpace
from nas_cluster.spaces.enas_recurrent.architecture import (
    ACTIVATIONS,
    Activation,
    RecurrentArchitecture,
    RecurrentChildOptions,
)
from nas_cluster.spaces.enas_recurrent.canonical import canonical
from nas_cluster.spaces.enas_recurrent.published import ENAS_LM, PUBLISHED, PUBLISHED_SCRIPT

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ENASRecurrent"]

_SHORT: dict[Activation, str] = {"tanh": "tanh", "relu": "relu", "identity": "id", "sigmoid": "sig"}
_FIRST: Activation = "tanh"
"""The first node's activation in the released code, which does not choose it."""


class ENASRecurrent(SearchSpace[RecurrentArchitecture]):
    """A cell is decided node by node: an earlier node, for all but the first, and an activation."""

    architecture_type: ClassVar[type[Architecture]] = RecurrentArchitecture
    understands: ClassVar[tuple[type[Task], ...]] = (LanguageTask,)
    shares_weights: ClassVar[bool] = True

    preset: Literal["paper", "release"] = "paper"
    """release: as the authors' later code (`enas_lm`), the first node is a tanh, h_t is the mean of all nodes but the
    first, and an activation has matrices of its own in the shared network."""
    nodes: int = Field(12, ge=1, le=62)
    """This is N, the first node included."""
    activations: Annotated[tuple[Activation, ...], Field(min_length=1), AfterValidator(named_once)] = ACTIVATIONS
    locality: bool = False
    """Favour near nodes as the first release does: the logit of node j at node n is (n - j)^2 / 6 less."""
    child: RecurrentChildOptions = RecurrentChildOptions()

    @model_validator(mode="after")
    def _has_something_to_decide(self) -> Self:
        if self.preset == "release" and self.nodes < 2:
            raise ValueError("nodes: 1, which preset release does not decide; write 2 or more")
        return self

    @property
    def batch_norm(self) -> bool:
        """Whether children normalise the mean of the loose ends."""
        return self.preset == "paper" and self.child.form == "search"

    @property
    def per_activation(self) -> bool:
        """Whether an edge has matrices of its own for each activation."""
        return self.preset == "release"

    def decisions(self) -> DecisionSpec:
        """A node has two: its previous node, its activation. Attention is over the steps that choose previous nodes, so
        the first node has such a step too, as an anchor."""
        return DecisionSpec(list(self._decisions()))

    def _decisions(self) -> Iterator[Decision]:
        anchors: list[int] = []
        step, words = 0, self.activations
        for number in range(self.nodes):
            earlier = tuple(anchors)
            anchors.append(step)
            if number:
                labels = tuple(f"node {n}" for n in range(number))
                bias = tuple(-((number - n) ** 2) / 6 for n in range(number)) if self.locality else ()
                yield Decision(f"node_{number}.previous", "pointer", number, "previous", earlier, labels, bias)
            else:
                yield Decision("node_0", "anchor", 1, "previous")
            step += 1
            if number or self.preset == "paper":
                yield Decision(f"node_{number}.activation", "choice", len(words), "activation", labels=words)
                step += 1

    def decode(self, tokens: Sequence[int]) -> RecurrentArchitecture:
        """The cell that tokens (T) stand for."""
        _, *rest = self.decisions().check(tokens)
        words = self.activations
        first = words[rest.pop(0)] if self.preset == "paper" else _FIRST
        pairs = [(previous, words[word]) for previous, word in zip(rest[::2], rest[1::2], strict=True)]
        return RecurrentArchitecture.of(first, pairs, self._average)

    @property
    def _average(self) -> Literal["loose_ends", "all"]:
        return "loose_ends" if self.preset == "paper" else "all"

    def encode(self, architecture: RecurrentArchitecture) -> Tokens:
        """The tokens that `decode` turns into this cell. Raises ValueError, which names what of it this space does not
        have."""
        if architecture.average != self._average:
            raise ValueError(
                f"h(t) is the mean of {architecture.average}, cells of preset {self.preset} take {self._average}"
            )
        if len(architecture.nodes) != self.nodes:
            raise ValueError(f"{len(architecture.nodes)} nodes, the space has {self.nodes}")
        tokens: list[int] = []
        for number, node in enumerate(architecture.nodes):
            tokens.append(node.previous or 0)
            if number == 0 and self.preset == "release":
                if node.activation != _FIRST:
                    raise ValueError(f"node 0: {node.activation}; in preset release it is {_FIRST}")
                continue
            if node.activation not in self.activations:
                raise ValueError(f"node {number}: {node.activation} is not among {list(self.activations)}")
            tokens.append(self.activations.index(node.activation))
        return tuple(tokens)

    def canonical(self, architecture: RecurrentArchitecture) -> RecurrentArchitecture:
        """The normal form of the labelled tree (canonical.py)."""
        return canonical(architecture)

    def check(self, task: LanguageTask) -> None:
        """Raise ConfigError when `child.parameters` is less than the smallest child has."""
        if self.child.parameters is not None:
            from nas_cluster.spaces.enas_recurrent.child import sized

            sized(self.child.language_model, self.nodes, self.batch_norm, task)

    def build_child(self, architecture: RecurrentArchitecture, task: LanguageTask) -> nn.Module:
        """The child network (child.py)."""
        from nas_cluster.spaces.enas_recurrent.child import recurrent_child

        return recurrent_child(
            architecture,
            self.child.language_model,
            task,
            per_activation=self.per_activation,
            norm=self.batch_norm,
        )

    def build_shared(self, task: LanguageTask) -> nn.Module:
        """The network of all children (shared.py)."""
        from nas_cluster.spaces.enas_recurrent.shared import SharedRecurrent

        return SharedRecurrent(
            self.nodes,
            self.activations,
            self.child.language_model,
            task,
            per_activation=self.per_activation,
            norm=self.batch_norm,
        )

    def summary(self, architecture: RecurrentArchitecture) -> str:
        """The activations, and which node each reads: `tanh tanh₀ relu₁ ...`."""
        subscripts = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
        return " ".join(
            _SHORT[node.activation] + ("" if node.previous is None else str(node.previous).translate(subscripts))
            for node in architecture.nodes
        )

    def draw(self, architecture: RecurrentArchitecture) -> list[Drawing]:
        """The picture goes from x(t) and h(t-1) down to the mean."""
        nodes = [Node("x", "x(t)", "input"), Node("h", "h(t-1)", "memory")]
        edges = [Edge("x", "0"), Edge("h", "0")]
        for number, node in enumerate(architecture.nodes):
            style: Literal["identity", "combine"] = "identity" if node.activation == "identity" else "combine"
            nodes.append(Node(str(number), f"{number}: {node.activation}", style, f"node {number}, with a highway"))
            if node.previous is not None:
                edges.append(Edge(str(node.previous), str(number)))
        nodes.append(Node("mean", "mean = h(t)", "output"))
        edges += [Edge(str(number), "mean") for number in architecture.averaged]
        return [Drawing(tuple(nodes), tuple(edges))]

    @classmethod
    def named(cls) -> Mapping[str, RecurrentArchitecture]:
        """Known are `published` and `published_script`, the paper's cell in two numberings, and `enas_lm`, that of the
        later code."""
        words: tuple[Activation, ...] = ("tanh", "relu", "sigmoid", "identity")
        pairs = [(p, words[a]) for p, a in zip(ENAS_LM[::2], ENAS_LM[1::2], strict=True)]
        return {
            "published": RecurrentArchitecture.from_numbers(PUBLISHED),
            "published_script": RecurrentArchitecture.from_numbers(PUBLISHED_SCRIPT),
            "enas_lm": RecurrentArchitecture.of(_FIRST, pairs, "all"),
        }
