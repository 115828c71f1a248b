"""The interface of a controller. Shapes: B children, T decisions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from nas_cluster.core.component import Component
from nas_cluster.core.decisions import DecisionSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from torch import Tensor

__all__ = ["Controller", "PolicyNetwork", "StepScores"]


@dataclass(frozen=True)
class StepScores:
    """Given tokens, decision by decision: log-probabilities and entropies (B, T); and for each decision that chooses
    skips, the probabilities (B, N) of its N candidates."""

    log_probs_BT: Tensor
    entropies_BT: Tensor
    skips: tuple[Tensor, ...] = ()

    @property
    def log_probs_B(self) -> Tensor:
        """Of whole sequences."""
        return self.log_probs_BT.sum(1)

    @property
    def entropies_B(self) -> Tensor:
        """Of whole sequences."""
        return self.entropies_BT.sum(1)


class PolicyNetwork(Protocol):
    """A torch module that samples architectures and scores them."""

    def sample(self, spec: DecisionSpec, count: int, generator: torch.Generator) -> Tensor:
        """Draw the tokens (int64, (B, T)) of `count` architectures in one batched unroll."""
        ...

    def scores(self, spec: DecisionSpec, tokens_BT: Tensor) -> StepScores:
        """How probable these tokens are, with gradient."""
        ...

    def named_parameters(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """The weights that the parameter servers hold, in a fixed order."""
        ...


class Controller(Component, ABC):
    """Settings that build a policy network. Its parameters depend on the spec's groups, not on its length, so that a
    controller trained at one depth goes on at the next."""

    package: ClassVar[str] = "nas_cluster.controllers"
    word: ClassVar[str] = "controller"

    @abstractmethod
    def build(self, spec: DecisionSpec, seed: int) -> PolicyNetwork:
        """A freshly initialised network; the same weights for the same arguments on every machine."""

    def check(self, spec: DecisionSpec) -> list[str]:
        """Reasons, one line each, why these settings do not fit `spec`."""
        return []
