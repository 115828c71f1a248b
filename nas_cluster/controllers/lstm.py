"""The LSTM controller of Zoph & Le 2017 (section 3, 4.1), with the logit shaping of ENAS as options."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas_cluster.controllers._lstm_settings import LSTMSettings
from nas_cluster.controllers.base import Controller
from nas_cluster.core.decisions import DecisionSpec

if TYPE_CHECKING:
    from nas_cluster.controllers._lstm_policy import LSTMPolicy

__all__ = ["LSTM"]


class LSTM(LSTMSettings, Controller):
    """Settings of the controller network; the defaults are the paper's."""

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
