"""An architecture as a sequence of tokens of one length, whatever its size.

Every block has decisions for `max_ops` operations with four convolutions each; what an architecture does not have is
token 0. Tokens of any origin are architectures: they are fitted, operation by operation, to the banks that are live and
to the budget (walk.py). So decoding and encoding again may change tokens, but not the architecture.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from nas_cluster.core.decisions import Decision, DecisionSpec, Tokens
from nas_cluster.spaces.memory_bank.architecture import BankArchitecture, BankBlock, BankOp, Convolution
from nas_cluster.spaces.memory_bank.sampler import perturb, sample
from nas_cluster.spaces.memory_bank.sizes import BlockSize
from nas_cluster.spaces.memory_bank.walk import Walk

if TYPE_CHECKING:
    from nas_cluster.spaces.memory_bank.space import MemoryBank

__all__ = ["BankSpec", "decode", "encode", "spec_of"]

_MASK_BITS = 62
"""Banks that one decision can select from; more banks take several decisions."""
_TRIES = 20


class BankSpec(DecisionSpec):
    """Its random architectures are those of the released sampler, and what is drawn anew is an element of one."""

    def __init__(self, space: MemoryBank) -> None:
        super().__init__(list(_decisions(space)))
        self._space = space

    @property
    def uniform(self) -> bool:
        """False."""
        return False

    def random(self, rng: np.random.Generator) -> Tokens:
        """Tokens of an architecture of the sampler."""
        return _tokens(self._space, sample(self._space, rng))

    def resample(self, tokens: Sequence[int], probability: float, rng: np.random.Generator) -> Tokens:
        """Every element of every operation drawn anew with this probability."""
        return _tokens(self._space, perturb(self._space, decode(self._space, self.check(tokens)), probability, rng))

    def mutate(self, tokens: Sequence[int], rng: np.random.Generator, among: Sequence[int] | None = None) -> Tokens:
        """Change exactly one decision, of an operation that is there, so that the architecture changes if a few tries
        find such a change: banks and convolutions that are not there are decided too."""
        before = decode(self._space, self.check(tokens))
        for _ in range(_TRIES):
            changed = super().mutate(tokens, rng, self._used(before) if among is None else among)
            if decode(self._space, changed) != before:
                break
        return changed

    def _used(self, architecture: BankArchitecture) -> list[int]:
        """Steps that are about bank sizes, the number of operations, or an operation that is there."""
        steps: list[int] = []
        step = 0
        for block, described in zip(self._space.block_sizes, architecture.blocks, strict=True):
            banks = block.banks(min(self._space.sizes_of(block)))
            length = _tokens_per_op(self._space, banks)
            first = step + banks + 2
            steps += [step, *range(first - 1, first + length * len(described.ops))]
            step = first + length * self._space.max_ops
        return steps


@lru_cache(maxsize=16)
def spec_of(space: MemoryBank) -> BankSpec:
    """The decisions of a space: thousands, so they are built once."""
    return BankSpec(space)


def _decisions(space: MemoryBank) -> Iterator[Decision]:
    """Per block: the bank size, an anchor for every bank, the number of operations, then the operations."""
    step = 0
    for block in space.block_sizes:
        name = f"block_{block.number + 1}"
        sizes = space.sizes_of(block)
        yield Decision(f"{name}.bank_size", "choice", len(sizes), f"bank_size_{name}", labels=tuple(map(str, sizes)))
        banks = block.banks(min(sizes))
        anchors = tuple(range(step + 1, step + 1 + banks))
        yield from (Decision(f"{name}.bank_{bank}", "anchor", 1, "bank") for bank in range(banks))
        yield Decision(f"{name}.ops", "choice", space.max_ops, "ops")
        step += banks + 2
        for op in range(space.max_ops):
            for decision in _op_decisions(space, f"{name}.op_{op}", anchors):
                yield decision
                step += 1


def _op_decisions(space: MemoryBank, name: str, anchors: tuple[int, ...]) -> Iterator[Decision]:
    """Banks by attention over their anchors, then what the operation computes."""

    def selection(word: str) -> Iterator[Decision]:
        for part, start in enumerate(range(0, len(anchors), _MASK_BITS)):
            chosen = anchors[start : start + _MASK_BITS]
            labels = tuple(f"bank {start + bank}" for bank in range(len(chosen)))
            yield Decision(f"{name}.{word}_{part}", "skips", len(chosen), word, chosen, labels)

    def choice(word: str, options: Iterable[object], group: str) -> Decision:
        labels = tuple(map(str, options))
        return Decision(f"{name}.{word}", "choice", len(labels), group, labels=labels)

    yield from selection("reads")
    yield choice("units", space.unit_choices, "units")
    yield from selection("writes")
    if len(space.masks) > 1:
        yield choice(
            "convolutions", ("".join("01"[there] for there in mask) for mask, _ in space.masks), "convolutions"
        )
    for place in range(space.places):
        for word, options in space.convolution_choices:
            yield choice(f"w{place}.{word}", options, word.partition("_")[0])


def decode(space: MemoryBank, tokens: Tokens) -> BankArchitecture:
    """Tokens within their range to an architecture."""
    remaining = iter(tokens)
    first, second, third = (_decode_block(space, block, remaining) for block in space.block_sizes)
    return BankArchitecture(blocks=(first, second, third))


def _decode_block(space: MemoryBank, block: BlockSize, remaining: Iterator[int]) -> BankBlock:
    sizes = space.sizes_of(block)
    size = sizes[next(remaining)]
    banks = block.banks(min(sizes))
    count = next(islice(remaining, banks, None)) + 1
    length = _tokens_per_op(space, banks)
    walk = Walk(block, size, block.slices)
    ops: list[BankOp] = []
    for number in range(space.max_ops):
        tokens = list(islice(remaining, length))
        if number < count and walk.goes_on:
            ops.append(_decode_op(space, walk, banks, iter(tokens)))
            walk.take(ops[-1])
    return BankBlock(bank_size=size, ops=tuple(ops))


def _decode_op(space: MemoryBank, walk: Walk, banks: int, remaining: Iterator[int]) -> BankOp:
    reads = walk.fit_reads(_read_selection(remaining, banks))
    units = walk.fit_units(space.unit_choices[next(remaining)])
    writes = walk.fit_writes(units, [bank for bank in _read_selection(remaining, banks) if bank < walk.banks])
    mask = space.masks[next(remaining) if len(space.masks) > 1 else 0][0]
    given = [_decode_convolution(space, remaining) for _ in range(space.places)]
    w0, w1, w2, w3 = (given[place] if there else None for place, there in enumerate(mask))
    return BankOp(reads=reads, units=units, writes=writes, convolutions=(w0, w1, w2, w3))


def _read_selection(remaining: Iterator[int], banks: int) -> list[int]:
    mask = 0
    for start in range(0, banks, _MASK_BITS):
        mask |= next(remaining) << start
    return [bank for bank in range(banks) if mask >> bank & 1]


def _decode_convolution(space: MemoryBank, remaining: Iterator[int]) -> Convolution:
    values = {"kernel_height": 3, "kernel_width": 3, "dilation_height": 1, "dilation_width": 1}
    values |= {"groups": space.groups[0]}
    values |= {word: options[next(remaining)] for word, options in space.convolution_choices}
    kernel = values["kernel_height"], values["kernel_width"]
    dilation = space.fit_dilation(kernel, (values["dilation_height"], values["dilation_width"]))
    return Convolution(kernel=kernel, dilation=dilation, groups=values["groups"])


def encode(space: MemoryBank, architecture: BankArchitecture) -> Tokens:
    """Inverse of `decode`. Raises ValueError: the block, the operation, and what of it this space does not have."""
    tokens = _tokens(space, architecture)
    decoded = decode(space, tokens)
    for number, (ours, theirs) in enumerate(zip(decoded.blocks, architecture.blocks, strict=True), start=1):
        for place, op in enumerate(theirs.ops):
            if place >= len(ours.ops):
                raise ValueError(f"block {number}: its operations from {place} on cost more than the block's budget")
            if ours.ops[place] != op:
                raise ValueError(f"block {number}, operation {place}: {_difference(ours.ops[place], op)}")
    return tokens


def _tokens(space: MemoryBank, architecture: BankArchitecture) -> Tokens:
    """`encode` without a look at what would be decoded. Raises ValueError for values that no decision has."""
    tokens: list[int] = []
    for block, described in zip(space.block_sizes, architecture.blocks, strict=True):
        where = f"block {block.number + 1}"
        sizes = space.sizes_of(block)
        banks = block.banks(min(sizes))
        if len(described.ops) > space.max_ops:
            raise ValueError(f"{where}: {len(described.ops)} operations, the space has at most {space.max_ops}")
        tokens.append(_index(sizes, described.bank_size, f"{where}: bank size"))
        tokens += [0] * banks
        tokens.append(len(described.ops) - 1)
        for number, op in enumerate(described.ops):
            tokens += _op_tokens(space, op, banks, f"{where}, operation {number}")
        tokens += [0] * (_tokens_per_op(space, banks) * (space.max_ops - len(described.ops)))
    return tuple(tokens)


def _op_tokens(space: MemoryBank, op: BankOp, banks: int, where: str) -> Iterator[int]:
    def selection(selected: Sequence[int], word: str) -> Iterator[int]:
        if selected[-1] >= banks:
            raise ValueError(f"{where}: {word} bank {selected[-1]}, the block has {banks}")
        mask = sum(1 << bank for bank in selected)
        for start in range(0, banks, _MASK_BITS):
            yield mask >> start & ((1 << _MASK_BITS) - 1)

    yield from selection(op.reads, "reads")
    yield _index(space.unit_choices, op.units, f"{where}: units")
    yield from selection(op.writes, "writes")
    mask = _index([mask for mask, _ in space.masks], op.mask, f"{where}: convolutions")
    if len(space.masks) > 1:
        yield mask
    for convolution in op.convolutions[: space.places]:
        values: dict[str, int] = {}
        if convolution is not None:
            values["kernel_height"], values["kernel_width"] = convolution.kernel
            values["dilation_height"], values["dilation_width"] = convolution.dilation
            values["groups"] = convolution.groups
        for word, options in space.convolution_choices:
            yield 0 if convolution is None else _index(options, values[word], f"{where}: {word.replace('_', ' ')}")


def _tokens_per_op(space: MemoryBank, banks: int) -> int:
    selections = 2 * -(-banks // _MASK_BITS)
    return selections + 1 + (len(space.masks) > 1) + space.places * len(space.convolution_choices)


def _index(options: Sequence[object], value: object, what: str) -> int:
    if value not in options:
        raise ValueError(f"{what} {value} is not among {list(options)}")
    return options.index(value)


def _difference(fitted: BankOp, given: BankOp) -> str:
    for word in ("reads", "units", "writes", "convolutions"):
        fits, has = getattr(fitted, word), getattr(given, word)
        if fits != has:
            shown = f"{list(has)}, what would fit is {list(fits)}" if word in ("reads", "writes") else f"{has}"
            return f"{word} {shown}"
    raise AssertionError("they are equal")
