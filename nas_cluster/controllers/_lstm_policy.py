"""The LSTM policy network.

Shapes: B children, T decisions, E embedding, H hidden, N options or candidates of one decision, n decisions scored
together.

Each step feeds the embedding of what was decided before into an LSTM and reads the decision from its top hidden state:
a softmax per group (choice), attention over the hidden states of earlier steps (pointer), or one Bernoulli per earlier
step (skips: set-selection attention, Zoph & Le 2017, section 3.3). The parameters belong to groups, not to steps, so
the same network serves a deeper spec.

Sampling goes step by step. Scoring knows all tokens: it unrolls the LSTM first and then computes the logits of all
decisions of a group at once.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas_cluster.controllers._layout import Layout, Part, is_anchor
from nas_cluster.controllers._lstm_settings import LSTMSettings
from nas_cluster.controllers._recurrence import Layer, lstm_step, unroll
from nas_cluster.controllers.base import StepScores
from nas_cluster.core.decisions import Decision, DecisionSpec, Head

__all__ = ["LSTMPolicy"]

_ILLEGAL = -1e9
"""Logit of what only fills up: its probability is zero, and it has no infinity to multiply by zero."""


class LSTMPolicy(nn.Module):
    """A policy over the token sequences of a spec."""

    def __init__(self, settings: LSTMSettings, spec: DecisionSpec, seed: int) -> None:
        super().__init__()
        self._settings = settings
        self._layout: Layout | None = None
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

    @torch.no_grad()
    def sample(self, spec: DecisionSpec, count: int, generator: torch.Generator) -> Tensor:
        """Draw the tokens (int64, (B, T)) of `count` architectures in one batched unroll."""
        layers = self._layers()
        zeros_BH = self.start.new_zeros(count, self._settings.hidden_size)
        zeros_B = torch.zeros(count, dtype=torch.long)
        state = [(zeros_BH, zeros_BH)] * len(layers)
        x_BE = start_BE = self.start.expand(count, -1)
        hidden_TBH = self.start.new_empty(len(spec), count, self._settings.hidden_size)
        tokens: list[Tensor] = []
        for step, decision in enumerate(spec):
            x = x_BE
            for number, (w_input, bias, w_hidden) in enumerate(layers):
                h_BH, c_BH = state[number]
                gates_BG = torch.addmm(torch.addmm(bias, x, w_input.t()), h_BH, w_hidden.t())
                x, c_BH, *_ = lstm_step(gates_BG, c_BH)
                state[number] = (x, c_BH)
            hidden_TBH[step] = x
            token_B, x_BE = zeros_B, start_BE
            if not is_anchor(decision):
                token_B, x_BE = self._draw(decision, hidden_TBH, step, generator)
            tokens.append(token_B)
        return torch.stack(tokens, 1)

    def scores(self, spec: DecisionSpec, tokens_BT: Tensor) -> StepScores:
        """How probable these tokens are, with gradient."""
        layout, tokens_TB = self._layout_of(spec), tokens_BT.t()
        embeddings = [self._embedding(group).weight for group in self.embeddings]
        tables = [self.start[None], *embeddings, torch.zeros_like(self.start[None])]
        given_TBE = F.embedding(layout.rows_of(tokens_TB), torch.cat(tables))
        mixture_TBT = layout.mixture_of(tokens_TB, self.start.dtype)
        feedback = self.feedback.weight if isinstance(self.feedback, nn.Linear) else None
        hidden_TBH = unroll(given_TBE, mixture_TBT, layout.mixed, feedback, self._layers())
        log_probs, entropies = [], []
        skips: dict[int, Tensor] = {}
        for part in layout.parts:
            logits_nBN = self._logits(part, hidden_TBH)
            tokens_nB = tokens_TB[part.steps_n]
            if part.head == "skips":
                log_probs_nB, entropies_nB = _score_bernoullis(logits_nBN, part.bits_of(tokens_nB), part.legal_nN)
                p_nBN = torch.sigmoid(logits_nBN)
                skips |= {t: p_nBN[k, :, : spec[t].options] for k, t in enumerate(part.steps_n.tolist())}
            else:
                log_probs_nB, entropies_nB = _score_categorical(logits_nBN, tokens_nB)
            log_probs.append(log_probs_nB)
            entropies.append(entropies_nB)
        anchors_1B = hidden_TBH.new_zeros(1, len(tokens_BT))
        log_probs_TB, entropies_TB = (
            torch.cat([*values, anchors_1B]).index_select(0, layout.order_T) for values in (log_probs, entropies)
        )
        return StepScores(log_probs_TB.t(), entropies_TB.t(), tuple(skips[t] for t in sorted(skips)))

    def _logits(self, part: Part, hidden_TBH: Tensor) -> Tensor:
        """(n, B, N), shaped, with the space's prior; `_ILLEGAL` where a decision has fewer options."""
        current_nBH = hidden_TBH.index_select(0, part.steps_n)
        if part.head == "choice":
            logits_nBN = self._output(part.group)(current_nBH)
        else:
            attention = self._attention(part)
            previous_TBH = attention.previous(hidden_TBH)
            keys_nND = F.embedding(part.candidates_nN, previous_TBH.flatten(1))
            keys_nNBH = keys_nND.view(*part.candidates_nN.shape, *previous_TBH.shape[1:])
            mixed_nNBH = torch.tanh(keys_nNBH + attention.current(current_nBH)[:, None])
            logits_nBN = (mixed_nNBH @ attention.v).transpose(1, 2)
        logits_nBN = self._shape(logits_nBN, part.head)
        if part.bias_nN is not None:
            logits_nBN = logits_nBN + part.bias_nN[:, None].to(logits_nBN.dtype)
        if part.legal_nN is not None:
            logits_nBN = logits_nBN.masked_fill(~part.legal_nN[:, None], _ILLEGAL)
        return logits_nBN

    def _draw(
        self, decision: Decision, hidden_TBH: Tensor, step: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Token, and the input of the next step."""
        top_BH = hidden_TBH[step]
        if decision.head == "choice":
            output, embedding = self._output(decision.group), self._embedding(decision.group)
            token_B = self._draw_one(F.linear(top_BH, output.weight, output.bias), decision, generator)
            return token_B, F.embedding(token_B, embedding.weight)
        attention = self._attention(decision)
        keys_NBH = hidden_TBH[list(decision.candidates)]
        previous_NBH = F.linear(keys_NBH, attention.previous.weight)
        mixed_NBH = torch.tanh(previous_NBH + F.linear(top_BH, attention.current.weight))
        logits_BN = (mixed_NBH @ attention.v).t()
        if decision.head == "pointer":
            token_B = self._draw_one(logits_BN, decision, generator)
            return token_B, self.feedback(keys_NBH[token_B, torch.arange(len(token_B))])
        p_BN = torch.sigmoid(self._shape(logits_BN, decision.head))
        skips_BN = torch.rand(p_BN.shape, generator=generator, dtype=p_BN.dtype) < p_BN
        mean_BH = (skips_BN.t()[:, :, None] * keys_NBH).sum(0) / (1 + skips_BN.sum(1, keepdim=True))
        return (skips_BN * 2 ** torch.arange(decision.options)).sum(1), self.feedback(mean_BH)

    def _draw_one(self, logits_BN: Tensor, decision: Decision, generator: torch.Generator) -> Tensor:
        """One option, as torch.multinomial draws it: whose share of its probability by an exponential variable is the
        largest. (Its checks of the probabilities take longer than all the rest.)"""
        logits_BN = self._shape(logits_BN, decision.head)
        if decision.bias:
            logits_BN = logits_BN + logits_BN.new_tensor(decision.bias)
        waits_BN = torch.empty_like(logits_BN).exponential_(1, generator=generator)
        return (torch.softmax(logits_BN, 1) / waits_BN).argmax(1)

    def _shape(self, logits: Tensor, head: Head) -> Tensor:
        """logit / T, then C tanh(logit), where set (ENAS)."""
        settings = self._settings
        if settings.temperature is not None:
            logits = logits / settings.temperature
        constant = settings.tanh_constant
        if head == "choice" and settings.choice_tanh_constant is not None:
            constant = settings.choice_tanh_constant
        return logits if constant is None else constant * torch.tanh(logits)

    def _layers(self) -> list[Layer]:
        pairs = zip(self.inputs, self.recurrent, strict=True)
        return [(cast(nn.Linear, i).weight, cast(nn.Linear, i).bias, cast(nn.Linear, r).weight) for i, r in pairs]

    def _output(self, group: str) -> nn.Linear:
        return cast(nn.Linear, self.outputs[group])

    def _embedding(self, group: str) -> nn.Embedding:
        return cast(nn.Embedding, self.embeddings[group])

    def _attention(self, of: Decision | Part) -> _Attention:
        return cast(_Attention, self.attention[f"{of.head}_{of.group}"])

    def _layout_of(self, spec: DecisionSpec) -> Layout:
        """The last one is kept: a spec changes only when the space grows."""
        if self._layout is None or (self._layout.spec is not spec and self._layout.spec != spec):
            self._layout = Layout(spec, {group: self._embedding(group).num_embeddings for group in self.embeddings})
        return self._layout


class _Attention(nn.Module):
    """v . tanh(W_previous h_j + W_current h_i) for every candidate j."""

    def __init__(self, H: int) -> None:
        super().__init__()
        self.previous = nn.Linear(H, H, bias=False)
        self.current = nn.Linear(H, H, bias=False)
        self.v = nn.Parameter(torch.empty(H))


def _score_categorical(logits_nBN: Tensor, tokens_nB: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities and entropies (n, B)."""
    log_p_nBN = F.log_softmax(logits_nBN, dim=2)
    log_probs_nB = log_p_nBN.gather(2, tokens_nB[:, :, None])[:, :, 0]
    return log_probs_nB, -(log_p_nBN.exp() * log_p_nBN).sum(2)


def _score_bernoullis(logits_nBN: Tensor, bits_nBN: Tensor, legal_nN: Tensor | None) -> tuple[Tensor, Tensor]:
    """The same of independent skips."""
    on_nBN, off_nBN, p_nBN = F.logsigmoid(logits_nBN), F.logsigmoid(-logits_nBN), torch.sigmoid(logits_nBN)
    log_probs_nBN = torch.where(bits_nBN.bool(), on_nBN, off_nBN)
    entropies_nBN = -(p_nBN * on_nBN + (1 - p_nBN) * off_nBN)
    if legal_nN is not None:
        log_probs_nBN, entropies_nBN = (x.masked_fill(~legal_nN[:, None], 0.0) for x in (log_probs_nBN, entropies_nBN))
    return log_probs_nBN.sum(2), entropies_nBN.sum(2)
