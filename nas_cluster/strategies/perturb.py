"""SMASH's search over a trained hypernetwork: random, then around the best (Brock et al. 2018; its released code)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import Field

from nas_cluster.core.decisions import DecisionSpec, Tokens
from nas_cluster.core.seeds import stream
from nas_cluster.strategies.base import Gradient, Proposal, Proposer, State, Strategy, Vector

__all__ = ["Perturb"]


class Perturb(Strategy):
    """Random children first; then perturbations of the best of those; then a chain: perturbations of the best of all,
    which a strictly better child replaces. It goes on as long as the budget does.

    The state is how many children were learned from, the parent and the best child, as `[tokens, reward]`. What is
    perturbed is an element of an architecture where its space says what that is, else a decision.
    """

    random: int = Field(500, ge=1)
    """Children of the first part."""
    perturbed: int = Field(100, ge=0)
    """Children of the second, all of one parent."""
    probability: float = Field(0.05, gt=0, le=1)
    """That an element is drawn anew."""

    def initial_state(self) -> State:
        """Nobody yet."""
        return {"seen": 0, "parent": None, "best": None}

    def observe(self, state: State, tokens: Sequence[Tokens], rewards: Sequence[float]) -> State:
        """Count the children; the first of the best ones is kept. It is the parent, too, except in the second part."""
        seen, parent, best = state["seen"], state["parent"], state["best"]
        for child, reward in zip(tokens, rewards, strict=True):
            seen += 1
            if best is None or reward > best[1]:
                best = [list(child), reward]
            if not self.random < seen < self.random + self.perturbed:
                parent = best
        return {"seen": seen, "parent": parent, "best": best}

    def proposer(self, spec: DecisionSpec) -> Proposer:
        """One that perturbs."""
        return _Perturber(self)


class _Perturber:
    def __init__(self, settings: Perturb) -> None:
        self._settings = settings

    def propose(self, weights: Vector, state: State, spec: DecisionSpec, count: int, seed: int) -> Proposal:
        """Random children until `random` are learned from, then perturbations of the parent; random ones, too, while
        there is none that fits the spec."""
        settings, parent = self._settings, state["parent"]
        if state["seen"] < settings.random or parent is None or not spec.fits(parent[0]):
            return Proposal.at_random(spec, count, seed)
        children = tuple(spec.resample(parent[0], settings.probability, stream(seed, index)) for index in range(count))
        return Proposal(children, (None,) * count, (None,) * count)

    def gradient(
        self, weights: Vector, state: State, spec: DecisionSpec, proposal: Proposal, rewards: Sequence[float]
    ) -> Gradient:
        """No weights, no gradient: `observe` learns."""
        scalars: dict[str, Any] = {"mean_reward": math.fsum(rewards) / len(rewards)}
        if state["best"] is not None:
            scalars["best_reward"] = state["best"][1]
        return Gradient(np.zeros(0, np.float32), scalars)
