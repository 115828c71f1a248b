"""What REINFORCE and its relatives share: a controller, an Adam optimizer, a moving-average baseline."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from nas_cluster.controllers import Controller
from nas_cluster.core.component import component_field
from nas_cluster.core.decisions import DecisionSpec, Tokens
from nas_cluster.strategies._adam import Adam
from nas_cluster.strategies.base import Proposer, State, Strategy

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["PolicyGradient"]


class PolicyGradient(Strategy):
    """A strategy that learns the policy of a controller by following the gradient of the reward."""

    controller: Annotated[Controller, *component_field(Controller, "strategy.controller")] = "lstm"  # type: ignore[assignment]
    learning_rate: float = Field(0.0006, gt=0)
    """Of the servers' Adam (Zoph & Le 2017, section 4.1)."""
    baseline_decay: float = Field(0.95, ge=0, lt=1)
    """Of the moving average of earlier rewards. Not given by Zoph & Le; NASNet's value."""
    entropy_weight: float = Field(0.0, ge=0)
    """Reward of a nat of entropy; 0 in Zoph & Le."""
    gradient_clip: float | None = Field(None, gt=0)
    """Largest norm of one minibatch's gradient."""

    @property
    def optimizer(self) -> Adam:
        """Adam with this strategy's learning rate."""
        return Adam(learning_rate=self.learning_rate)

    def initial_weights(self, spec: DecisionSpec, seed: int) -> Mapping[str, NDArray[np.float32]]:
        """The controller's named tensors, freshly initialised."""
        network = self.controller.build(spec, seed)
        return {name: p.detach().numpy().copy() for name, p in network.named_parameters()}

    def initial_state(self) -> State:
        """No baseline yet."""
        return {"baseline": None}

    def observe(self, state: State, tokens: Sequence[Tokens], rewards: Sequence[float]) -> State:
        """Move the baseline towards each reward in turn; the first reward of all is the first baseline."""
        baseline = state["baseline"]
        for reward in rewards:
            baseline = reward if baseline is None else baseline + (1 - self.baseline_decay) * (reward - baseline)
        return {**state, "baseline": baseline}

    @abstractmethod
    def loss(self, log_probs_B: Tensor, entropies_B: Tensor, rewards_B: Tensor, baseline: float) -> Tensor:
        """The scalar to descend for one minibatch."""

    def proposer(self, spec: DecisionSpec) -> Proposer:
        """The controller in this process."""
        from nas_cluster.strategies._controller_proposer import ControllerProposer

        return ControllerProposer(self, spec)
