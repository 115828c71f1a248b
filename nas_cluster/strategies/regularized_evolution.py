"""Regularized (ageing) evolution (Real et al. 2019, algorithm 1), asynchronous on the engine of the controllers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from pydantic import Field

from nas_cluster.core.decisions import DecisionSpec, Tokens
from nas_cluster.core.seeds import stream
from nas_cluster.strategies.base import Gradient, Proposal, Proposer, State, Strategy, Vector

__all__ = ["RegularizedEvolution"]


class RegularizedEvolution(Strategy):
    """The best of a random few is mutated in one decision; the child joins the population, whose oldest member leaves.

    The state is the population: `[tokens, reward]` of the last `population` children learned from, oldest first. Failed
    children are members too, with their failure reward.
    """

    population: int = Field(100, ge=1)
    """P: children that are remembered; as many are sampled at random before the first is bred."""
    tournament: int = Field(25, ge=1)
    """S: members drawn, with replacement, of which the best becomes the parent."""

    def initial_state(self) -> State:
        """Nobody yet."""
        return {"population": []}

    def observe(self, state: State, tokens: Sequence[Tokens], rewards: Sequence[float]) -> State:
        """The children join, the oldest leave."""
        born = [[list(child), reward] for child, reward in zip(tokens, rewards, strict=True)]
        return {"population": [*state["population"], *born][-self.population :]}

    def proposer(self, spec: DecisionSpec) -> Proposer:
        """A breeder."""
        return _Breeder(self)


class _Breeder:
    def __init__(self, settings: RegularizedEvolution) -> None:
        self._settings = settings

    def propose(self, weights: Vector, state: State, spec: DecisionSpec, count: int, seed: int) -> Proposal:
        """Random children until `population` members of this spec are known, then mutated parents.

        Members that do not fit the spec (of an earlier depth of a space that grows) are no parents; they leave by age.
        """
        members = [(tokens, reward) for tokens, reward in state["population"] if spec.fits(tokens)]
        if len(members) < self._settings.population:
            return Proposal.at_random(spec, count, seed)
        children = tuple(self._breed(members, spec, stream(seed, index)) for index in range(count))
        return Proposal(children, (None,) * count, (None,) * count)

    def _breed(self, members: list[tuple[Tokens, float]], spec: DecisionSpec, rng: np.random.Generator) -> Tokens:
        drawn = [members[i] for i in rng.integers(len(members), size=self._settings.tournament)]
        parent, _ = max(drawn, key=lambda member: member[1])
        return spec.mutate(parent, rng)

    def gradient(
        self, weights: Vector, state: State, spec: DecisionSpec, proposal: Proposal, rewards: Sequence[float]
    ) -> Gradient:
        """No weights, no gradient: `observe` learns."""
        population = [reward for _, reward in state["population"]]
        scalars = {"mean_reward": math.fsum(rewards) / len(rewards)}
        if population:
            scalars["population_mean"] = math.fsum(population) / len(population)
        return Gradient(np.zeros(0, np.float32), scalars)
