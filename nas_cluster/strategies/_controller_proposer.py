"""A controller at work in a replica: weights in as one flat vector, a gradient out as one flat vector."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from nas_cluster.controllers import Controller, StepScores
from nas_cluster.core.decisions import DecisionSpec, Tokens
from nas_cluster.strategies._minibatch import Minibatch
from nas_cluster.strategies._skip_prior import SkipPrior
from nas_cluster.strategies.base import Gradient, Proposal, State, Vector

__all__ = ["ControllerProposer"]


_LARGEST_NORM = 1e15
"""Of any gradient, clipped or not: the servers' Adam squares it in float32, which ends at 3.4e38."""


class Learning(Protocol):
    """What a proposer asks of its strategy."""

    @property
    def controller(self) -> Controller:
        """The settings of the network."""

    @property
    def gradient_clip(self) -> float | None:
        """Largest norm of one minibatch's gradient."""

    @property
    def skip_prior(self) -> SkipPrior | None:
        """What is added to the loss where a space decides skips."""

    @property
    def wants_step_log_probs(self) -> bool:
        """Whether proposals record the log-probability of every decision."""

    def loss(self, batch: Minibatch) -> torch.Tensor:
        """The scalar to descend for one minibatch."""

    def watch(self, batch: Minibatch) -> dict[str, float]:
        """Further numbers for people."""


class ControllerProposer:
    """Holds one network whose parameters and gradients are views of two flat buffers: loading weights is one copy."""

    def __init__(self, strategy: Learning, spec: DecisionSpec) -> None:
        self._strategy = strategy
        self._network = strategy.controller.build(spec, seed=0)
        parameters = [p for _, p in self._network.named_parameters()]
        size = sum(p.numel() for p in parameters)
        self._scored: tuple[DecisionSpec, tuple[Tokens, ...], StepScores] | None = None
        """The last proposal, its graph not yet used."""
        self._weights = torch.zeros(size)
        self._gradient = torch.zeros(size)
        offset = 0
        for p in parameters:
            part = slice(offset, offset + p.numel())
            p.data = self._weights[part].view(p.shape)
            p.grad = self._gradient[part].view(p.shape)
            offset = part.stop

    def propose(self, weights: Vector, state: State, spec: DecisionSpec, count: int, seed: int) -> Proposal:
        """Sample `count` architectures in one batched unroll."""
        self._load(weights)
        tokens_BT = self._network.sample(spec, count, torch.Generator().manual_seed(seed))
        scores = self._network.scores(spec, tokens_BT)
        tokens = tuple(tuple(row) for row in tokens_BT.tolist())
        self._scored = (spec, tokens, scores)
        return Proposal(
            tokens=tokens,
            log_probs=tuple(scores.log_probs_B.tolist()),
            entropies=tuple(scores.entropies_B.tolist()),
            step_log_probs=_rows(scores.log_probs_BT) if self._strategy.wants_step_log_probs else None,
        )

    def gradient(
        self, weights: Vector, state: State, spec: DecisionSpec, proposal: Proposal, rewards: Sequence[float]
    ) -> Gradient:
        """Gradient of the strategy's loss at `weights`. Before any earlier reward the minibatch's mean is the baseline:
        a first baseline of zero would push every first architecture up, whatever its reward."""
        scores = self._scores(weights, spec, proposal.tokens)
        self._gradient.zero_()
        baseline = state["baseline"] if state["baseline"] is not None else math.fsum(rewards) / len(rewards)
        steps = proposal.step_log_probs
        batch = Minibatch(
            scores.log_probs_BT,
            scores.entropies_B,
            rewards_B=torch.tensor(rewards),
            baseline=baseline,
            sampled_log_probs_B=torch.tensor(proposal.log_probs),
            sampled_log_probs_BT=None if steps is None else torch.tensor(steps),
        )
        loss = self._strategy.loss(batch)
        prior = self._strategy.skip_prior
        divergence = None
        if prior is not None and scores.skips:
            divergence = prior.divergence(scores.skips)
            loss = loss + prior.weight * divergence
        loss.backward()  # type: ignore[no-untyped-call]
        norm = float(torch.linalg.vector_norm(self._gradient))
        if not math.isfinite(norm):  # of huge rewards the squares are beyond float32
            norm = float(torch.linalg.vector_norm(self._gradient, dtype=torch.float64))
        clip = self._strategy.gradient_clip
        most = _LARGEST_NORM if clip is None else min(clip, _LARGEST_NORM)
        if norm > most:
            self._gradient.mul_(most / norm)
        scalars = {
            "loss": float(loss.detach()),
            "entropy": float(batch.entropies_B.detach().mean()),
            "baseline": float(baseline),
            "mean_reward": math.fsum(rewards) / len(rewards),
            "gradient_norm": norm,
            **({} if divergence is None else {"skip_divergence": float(divergence.detach())}),
            **self._strategy.watch(batch),
        }
        return Gradient(self._gradient.numpy().copy(), scalars)

    def _scores(self, weights: Vector, spec: DecisionSpec, tokens: tuple[Tokens, ...]) -> StepScores:
        """Those of the last proposal, where it is this one; the same numbers either way."""
        scored, self._scored = self._scored, None
        if scored is not None and scored[:2] == (spec, tokens) and np.array_equal(self._weights.numpy(), weights):
            return scored[2]
        self._load(weights)
        return self._network.scores(spec, torch.tensor(tokens))

    def _load(self, weights: Vector) -> None:
        self._weights.copy_(torch.from_numpy(np.ascontiguousarray(weights)))


def _rows(values_BT: torch.Tensor) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in values_BT.tolist())
