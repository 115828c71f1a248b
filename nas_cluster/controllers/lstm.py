"""The LSTM controller of Zoph & Le 2017 (section 3, 4.1), with the logit shaping of ENAS as options."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from nas_cluster.controllers.base import Controller
from nas_cluster.core.decisions import DecisionSpec

if TYPE_CHECKING:
    from nas_cluster.controllers._lstm_policy import LSTMPolicy

__all__ = ["LSTM"]


class LSTM(Controller):
    """Settings of the controller network; the defaults are the paper's."""

    layers: int = Field(2, ge=1)
    hidden_size: int = Field(35, ge=1)
    embedding_size: int | None = Field(None, ge=1)
    """Of the fed-back tokens; null: hidden_size (the paper does not say)."""
    init_range: float = Field(0.08, gt=0)
    """All weights start uniform in plus or minus this."""
    temperature: float | None = Field(None, gt=0)
    """Divides every logit (5 in ENAS)."""
    tanh_constant: float | None = Field(None, gt=0)
    """C of C * tanh(logit), applied after the temperature (2.5 in ENAS)."""
    choice_tanh_constant: float | None = Field(None, gt=0)
    """C of choices, where it is another than that of attention (ENAS's release: 0.44 for operations beside 1.1)."""
    initial_biases: dict[str, tuple[float, ...]] = {}
    """What the biases of a group of choices start at (ENAS's release: `operation: [10, 10, 0, 0, 0]`)."""

    def build(self, spec: DecisionSpec, seed: int) -> LSTMPolicy:
        """A freshly initialised network for every group of `spec`."""
        from nas_cluster.controllers._lstm_policy import LSTMPolicy

        return LSTMPolicy(self, spec, seed)

    def check(self, spec: DecisionSpec) -> list[str]:
        """`initial_biases` must be of groups that there are."""
        groups = {d.group: d.options for d in spec if d.head == "choice"}
        known = ", ".join(f"{name} ({options})" for name, options in sorted(groups.items()))
        return [
            f"strategy.controller.initial_biases.{group}: {len(biases)} biases; the groups of choices are {known}"
            for group, biases in self.initial_biases.items()
            if groups.get(group) != len(biases)
        ]
