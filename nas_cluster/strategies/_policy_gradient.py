"""What REINFORCE and its relatives share: a controller, an Adam optimizer, a moving-average baseline."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from nas_cluster.controllers import Controller
from nas_cluster.core.component import component_field
from nas_cluster.core.decisions import DecisionSpec, Tokens
from nas_cluster.spaces import SearchSpace
from nas_cluster.strategies._adam import Adam
from nas_cluster.strategies._minibatch import Minibatch
from nas_cluster.strategies._skip_prior import SkipPrior
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
    skip_prior: SkipPrior | None = None
    """Keeps the number of skip connections in bounds; null: nothing does."""

    @property
    def optimizer(self) -> Adam:
        """Adam with this strategy's learning rate."""
        return Adam(learning_rate=self.learning_rate)

    def check(self, space: SearchSpace[Any]) -> list[str]:
        """The controller's reasons; a `skip_prior` needs a space with skips."""
        spec = space.decisions()
        found = self.controller.check(spec)
        if self.skip_prior is not None and not any(d.head == "skips" for d in spec):
            found.append(f"strategy.skip_prior: space {space.kind!r} decides no skip connections")
        return found

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

    @property
    def wants_step_log_probs(self) -> bool:
        """Whether proposals record the log-probability of every decision, for `Minibatch.sampled_log_probs_BT`."""
        return False

    @abstractmethod
    def loss(self, batch: Minibatch) -> Tensor:
        """The scalar to descend for one minibatch."""

    def watch(self, batch: Minibatch) -> dict[str, float]:
        """Further numbers for people, besides loss, entropy, baseline and gradient norm."""
        return {}

    def proposer(self, spec: DecisionSpec) -> Proposer:
        """The controller in this process."""
        from nas_cluster.strategies._controller_proposer import ControllerProposer

        return ControllerProposer(self, spec)
