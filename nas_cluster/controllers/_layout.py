"""How the decisions of a spec lie in batched tensors.

Shapes: T decisions, B children, n decisions of one part, N options or candidates of the widest of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from nas_cluster.core.decisions import Decision, DecisionSpec, Head

__all__ = ["Layout", "Part"]


@dataclass(frozen=True)
class Part:
    """Decisions that are scored together: those of one head and group.

    candidates_nN: steps that are attended to, filled up with step 0 where a decision has fewer. legal_nN: which of
    the N are its own; None where all are. bias_nN: None where no decision has one.

    >>> spec = DecisionSpec([Decision("a", "choice", 3, "size"), Decision("b", "choice", 2, "size")])
    >>> part = Part.of(spec, [0, 1])
    >>> part.steps_n.tolist(), part.legal_nN.tolist()
    ([0, 1], [[True, True, True], [True, True, False]])
    """

    head: Head
    group: str
    steps_n: Tensor
    candidates_nN: Tensor
    legal_nN: Tensor | None
    bias_nN: Tensor | None

    @classmethod
    def of(cls, spec: DecisionSpec, steps: list[int]) -> Part:
        """The part of these steps."""
        decisions = [spec[t] for t in steps]
        N = max(d.options for d in decisions)
        legal_nN = torch.arange(N) < torch.tensor([[d.options] for d in decisions])
        return cls(
            decisions[0].head,
            decisions[0].group,
            torch.tensor(steps),
            torch.tensor([_filled(d.candidates, N) for d in decisions], dtype=torch.long),
            None if bool(legal_nN.all()) else legal_nN,
            torch.tensor([_filled(d.bias, N) for d in decisions]) if any(d.bias for d in decisions) else None,
        )

    def bits_of(self, tokens_nB: Tensor) -> Tensor:
        """Of skips: whether candidate j is selected (n, B, N); bit j of a token."""
        return (tokens_nB[:, :, None] >> torch.arange(self.candidates_nN.shape[1])) & 1


class Layout:
    """A spec for one network. `groups`: of choices, in the order of their tables of embeddings, which stand after the
    one row of the network's start and before one row of zeros; `sizes`: their options.

    >>> spec = DecisionSpec([Decision("a", "choice", 3, "size"), Decision("b", "choice", 2, "kind")])
    >>> layout = Layout(spec, {"size": 3, "kind": 2})
    >>> [part.group for part in layout.parts], layout.order_T.tolist()
    (['kind', 'size'], [1, 0])
    """

    def __init__(self, spec: DecisionSpec, sizes: dict[str, int]) -> None:
        self.spec = spec
        first_row, rows = {}, 1
        for group, options in sizes.items():
            first_row[group] = rows
            rows += options
        zeros = rows
        decided = [t for t, d in enumerate(spec) if not is_anchor(d)]
        by_part = sorted(decided, key=lambda t: (spec[t].head, spec[t].group))
        self.parts = [
            Part.of(spec, list(steps)) for _, steps in groupby(by_part, key=lambda t: (spec[t].head, spec[t].group))
        ]
        place = {t: k for k, t in enumerate(by_part)}
        self.order_T = torch.tensor([place.get(t, len(by_part)) for t in range(len(spec))])
        """Where a step's score stands among those of all parts, one after the other; anchors have the row after."""
        before = [*spec][:-1]
        self.mixed = [t + 1 for t, d in enumerate(before) if d.head in ("pointer", "skips") and not is_anchor(d)]
        """Steps whose input is made of earlier hidden states."""
        rows_of = [0] + [first_row[d.group] if d.head == "choice" else 0 if is_anchor(d) else zeros for d in before]
        self._first_row_T1 = torch.tensor(rows_of)[:, None]
        self._fed_T1 = torch.tensor([0] + [int(d.head == "choice") for d in before])[:, None]

    def rows_of(self, tokens_TB: Tensor) -> Tensor:
        """Which row of the tables is the input of each step (T, B)."""
        fed_TB = torch.cat([torch.zeros_like(tokens_TB[:1]), tokens_TB[:-1]])
        return self._first_row_T1 + self._fed_T1 * fed_TB

    def mixture_of(self, tokens_TB: Tensor, dtype: torch.dtype) -> Tensor:
        """Weights (T, B, T) of earlier hidden states in the input of each step: 1 for what a pointer chose,
        1 / (1 + count) for each of the skips selected."""
        T, B = tokens_TB.shape
        mixture_TBT = torch.zeros(T + 1, B, T, dtype=dtype)  # the last decision is fed to nobody
        for part in self.parts:
            tokens_nB, next_n = tokens_TB[part.steps_n], part.steps_n + 1
            if part.head == "pointer":
                chosen_nB = part.candidates_nN.gather(1, tokens_nB)
                mixture_TBT[next_n] = torch.nn.functional.one_hot(chosen_nB, T).to(dtype)
            elif part.head == "skips":
                bits_nBN = part.bits_of(tokens_nB).to(dtype)
                weights_nBN = bits_nBN / (1 + bits_nBN.sum(2, keepdim=True))
                places_nBN = part.candidates_nN[:, None].expand_as(weights_nBN)
                mixture_TBT[next_n] = torch.zeros(len(next_n), B, T, dtype=dtype).scatter_add_(
                    2, places_nBN, weights_nBN
                )
        return mixture_TBT[:T]


def is_anchor(decision: Decision) -> bool:
    """Whether there is nothing to decide, with no probability to count: an anchor, or skips among no candidates."""
    return decision.head == "anchor" or (decision.head == "skips" and decision.options == 0)


def _filled(values: tuple[int, ...] | tuple[float, ...], count: int) -> list[float]:
    return [*values, *[0] * (count - len(values))]
