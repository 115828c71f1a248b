"""The LSTM policy network.

Shapes: B children, T decisions, E embedding, H hidden, N options or candidates of one decision.

Each step feeds the embedding of what was decided before into an LSTM and reads the decision from its top hidden state:
a softmax per group (choice), attention over the hidden states of earlier steps (pointer), or one Bernoulli per earlier
step (skips: set-selection attention, Zoph & Le 2017, section 3.3). The parameters belong to groups, not to steps, so
the same network serves a deeper spec.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas_cluster.controllers.base import Sample, StepScores
from nas_cluster.core.decisions import Decision, DecisionSpec

if TYPE_CHECKING:
    from nas_cluster.controllers.lstm import LSTM

__all__ = ["LSTMPolicy"]

State = list[tuple[Tensor, Tensor]]


class LSTMPolicy(nn.Module):
    """A policy over the token sequences of a spec."""

    def __init__(self, settings: LSTM, spec: DecisionSpec, seed: int) -> None:
        super().__init__()
        self._settings = settings
        H = settings.hidden_size
        E = settings.embedding_size or H
        heads = {d.group: d for d in spec if d.head == "choice"}
        attended = sorted({f"{d.head}_{d.group}" for d in spec if d.head in ("pointer", "skips")})
        self.start = nn.Parameter(torch.empty(E))
        self.inputs = nn.ModuleList(nn.Linear(E if layer == 0 else H, 4 * H) for layer in range(settings.layers))
        self.recurrent = nn.ModuleList(nn.Linear(H, 4 * H, bias=False) for _ in range(settings.layers))
        self.embeddings = nn.ModuleDict({g: nn.Embedding(d.options, E) for g, d in sorted(heads.items())})
        self.outputs = nn.ModuleDict({g: nn.Linear(H, d.options) for g, d in sorted(heads.items())})
        self.attention = nn.ModuleDict({name: _Attention(H) for name in attended})
        self.feedback = nn.Linear(H, E, bias=False) if attended and E != H else nn.Identity()
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for p in self.parameters():
                p.uniform_(-settings.init_range, settings.init_range, generator=generator)
            for group, biases in settings.initial_biases.items():
                self.outputs[group].bias.copy_(torch.tensor(biases))  # type: ignore[operator]

    def sample(self, spec: DecisionSpec, count: int, generator: torch.Generator) -> Sample:
        """Draw `count` architectures in one batched unroll, without gradient."""
        with torch.no_grad():
            tokens_BT, scores = self._unroll(spec, count, None, generator)
        return Sample(tokens_BT, scores.log_probs_BT.sum(1), scores.entropies_BT.sum(1), scores.log_probs_BT)

    def log_prob(self, spec: DecisionSpec, tokens_BT: Tensor) -> tuple[Tensor, Tensor]:
        """(log_probs_B, entropies_B) of given tokens, with gradient: the numbers `sample` gave."""
        scores = self.scores(spec, tokens_BT)
        return scores.log_probs_BT.sum(1), scores.entropies_BT.sum(1)

    def scores(self, spec: DecisionSpec, tokens_BT: Tensor) -> StepScores:
        """The same, decision by decision."""
        return self._unroll(spec, len(tokens_BT), tokens_BT, None)[1]

    def _unroll(
        self, spec: DecisionSpec, B: int, given_BT: Tensor | None, generator: torch.Generator | None
    ) -> tuple[Tensor, StepScores]:
        """Score `given_BT`, or sample with `generator`; the same arithmetic either way."""
        H = self._settings.hidden_size
        zeros_BH = self.start.new_zeros(B, H)
        state: State = [(zeros_BH, zeros_BH)] * self._settings.layers
        input_BE = self.start.expand(B, -1)
        hidden: list[Tensor] = []
        tokens, log_probs, entropies = [], [], []
        skips: list[Tensor] = []
        for step, decision in enumerate(spec):
            top_BH, state = self._cell(input_BE, state)
            hidden.append(top_BH)
            given_B = None if given_BT is None else given_BT[:, step]
            token_B, log_prob_B, entropy_B, input_BE = self._decide(decision, top_BH, hidden, given_B, generator, skips)
            tokens.append(token_B)
            log_probs.append(log_prob_B)
            entropies.append(entropy_B)
        return torch.stack(tokens, 1), StepScores(torch.stack(log_probs, 1), torch.stack(entropies, 1), tuple(skips))

    def _cell(self, input_BE: Tensor, state: State) -> tuple[Tensor, State]:
        """One step of the stacked LSTM; the top layer's hidden state and the new state."""
        following: State = []
        x = input_BE
        for w_input, w_recurrent, (h, c) in zip(self.inputs, self.recurrent, state, strict=True):
            i, f, g, o = (w_input(x) + w_recurrent(h)).chunk(4, dim=1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            x = torch.sigmoid(o) * torch.tanh(c)
            following.append((x, c))
        return x, following

    def _decide(
        self,
        decision: Decision,
        top_BH: Tensor,
        hidden: list[Tensor],
        given_B: Tensor | None,
        generator: torch.Generator | None,
        skips: list[Tensor],
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Token, log-probability, entropy, and the next step's input; the probabilities of skips go into `skips`."""
        B = len(top_BH)
        if decision.head == "anchor" or (decision.head == "skips" and decision.options == 0):
            zero_B = top_BH.new_zeros(B)
            return torch.zeros(B, dtype=torch.long), zero_B, zero_B, self.start.expand(B, -1)
        if decision.head == "choice":
            logits_BN = self._shape(self.outputs[decision.group](top_BH), decision)
            token_B, log_prob_B, entropy_B = _categorical(logits_BN, given_B, generator)
            return token_B, log_prob_B, entropy_B, self.embeddings[decision.group](token_B)
        keys_BNH = torch.stack([hidden[candidate] for candidate in decision.candidates], 1)
        logits_BN = self._shape(self.attention[f"{decision.head}_{decision.group}"](top_BH, keys_BNH), decision)
        if decision.head == "pointer":
            token_B, log_prob_B, entropy_B = _categorical(logits_BN, given_B, generator)
            chosen_BH = keys_BNH[torch.arange(B), token_B]
            return token_B, log_prob_B, entropy_B, self.feedback(chosen_BH)
        skips.append(torch.sigmoid(logits_BN))
        token_B, skips_BN, log_prob_B, entropy_B = _bernoullis(logits_BN, given_B, generator)
        mean_BH = (skips_BN[:, :, None] * keys_BNH).sum(1) / (1 + skips_BN.sum(1, keepdim=True))
        return token_B, log_prob_B, entropy_B, self.feedback(mean_BH)

    def _shape(self, logits_BN: Tensor, decision: Decision) -> Tensor:
        """logit / T, then C tanh(logit), where set (ENAS); then the space's own prior."""
        settings = self._settings
        if settings.temperature is not None:
            logits_BN = logits_BN / settings.temperature
        constant = settings.tanh_constant
        if decision.head == "choice" and settings.choice_tanh_constant is not None:
            constant = settings.choice_tanh_constant
        if constant is not None:
            logits_BN = constant * torch.tanh(logits_BN)
        return logits_BN + logits_BN.new_tensor(decision.bias) if decision.bias else logits_BN


class _Attention(nn.Module):
    """v . tanh(W_previous h_j + W_current h_i) for every candidate j."""

    def __init__(self, H: int) -> None:
        super().__init__()
        self.previous = nn.Linear(H, H, bias=False)
        self.current = nn.Linear(H, H, bias=False)
        self.v = nn.Parameter(torch.empty(H))

    def forward(self, current_BH: Tensor, keys_BNH: Tensor) -> Tensor:
        """Logits (B, N)."""
        logits: Tensor = torch.tanh(self.previous(keys_BNH) + self.current(current_BH)[:, None]) @ self.v
        return logits


def _categorical(
    logits_BN: Tensor, given_B: Tensor | None, generator: torch.Generator | None
) -> tuple[Tensor, Tensor, Tensor]:
    log_p_BN = F.log_softmax(logits_BN, dim=1)
    p_BN = log_p_BN.exp()
    token_B = torch.multinomial(p_BN, 1, generator=generator)[:, 0] if given_B is None else given_B
    log_prob_B = log_p_BN.gather(1, token_B[:, None])[:, 0]
    return token_B, log_prob_B, -(p_BN * log_p_BN).sum(1)


def _bernoullis(
    logits_BN: Tensor, given_B: Tensor | None, generator: torch.Generator | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Independent skips. Tokens are bit masks: bit j is candidate j."""
    B, N = logits_BN.shape
    bits_N = 2 ** torch.arange(N)
    p_BN = torch.sigmoid(logits_BN)
    if given_B is None:
        skips_BN = torch.rand(B, N, generator=generator, dtype=p_BN.dtype) < p_BN
        token_B = (skips_BN * bits_N).sum(1)
    else:
        token_B = given_B
        skips_BN = (given_B[:, None] & bits_N) != 0
    on_BN, off_BN = F.logsigmoid(logits_BN), F.logsigmoid(-logits_BN)
    log_prob_B = torch.where(skips_BN, on_BN, off_BN).sum(1)
    entropy_B = -(p_BN * on_BN + (1 - p_BN) * off_BN).sum(1)
    return token_B, skips_BN.to(logits_BN.dtype), log_prob_B, entropy_B
