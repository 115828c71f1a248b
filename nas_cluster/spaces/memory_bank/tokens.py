"""An architecture as a sequence of tokens of one length, whatever its size.

Every block has tokens for `max_ops` operations with four convolutions each; what an architecture does not have is
token 0. Tokens of any origin are architectures: they are fitted, operation by operation, to the banks that are live and
to the budget (walk.py). So decoding and encoding again may change tokens, but not the architecture.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TypeVar

from nas_cluster.core.decisions import Tokens
from nas_cluster.spaces.memory_bank.architecture import BankArchitecture, BankBlock, BankOp, Convolution
from nas_cluster.spaces.memory_bank.geometry import Geometry
from nas_cluster.spaces.memory_bank.sizes import BlockSize
from nas_cluster.spaces.memory_bank.walk import Walk

__all__ = ["decode", "encode", "selections", "tokens_of", "tokens_per_op"]

_MASK_BITS = 62
"""One decision can select from so many banks; more of them take several decisions."""

T = TypeVar("T")


def selections(banks: int) -> list[range]:
    """The parts of so many banks that one decision each selects from."""
    return [range(start, min(start + _MASK_BITS, banks)) for start in range(0, banks, _MASK_BITS)]


def tokens_per_op(geometry: Geometry, block: BlockSize) -> int:
    """How many tokens an operation of this block takes."""
    of_convolutions = (len(geometry.masks) > 1) + geometry.places * len(geometry.convolution_choices)
    return 2 * len(selections(block.most_banks)) + 1 + of_convolutions


def decode(geometry: Geometry, tokens: Tokens) -> BankArchitecture:
    """The architecture that tokens within their range stand for."""
    remaining = iter(tokens)
    first, second, third = (_decode_block(geometry, block, remaining) for block in geometry.block_sizes)
    return BankArchitecture(blocks=(first, second, third))


def _decode_block(geometry: Geometry, block: BlockSize, remaining: Iterator[int]) -> BankBlock:
    size = block.bank_sizes[next(remaining)]
    count = next(islice(remaining, block.most_banks, None)) + 1
    length = tokens_per_op(geometry, block)
    walk = Walk(block, size, block.slices)
    ops: list[BankOp] = []
    for number in range(geometry.max_ops):
        tokens = list(islice(remaining, length))
        if number < count and walk.goes_on:
            ops.append(_decode_op(geometry, walk, block.most_banks, iter(tokens)))
            walk.take(ops[-1])
    return BankBlock(bank_size=size, ops=tuple(ops))


def _decode_op(geometry: Geometry, walk: Walk, banks: int, remaining: Iterator[int]) -> BankOp:
    reads = walk.fit_reads(_decode_selection(remaining, banks))
    units = walk.fit_units(geometry.unit_choices[next(remaining)])
    writes = walk.fit_writes(units, [bank for bank in _decode_selection(remaining, banks) if bank < walk.banks])
    mask = _decided(remaining, [*geometry.masks])
    given = [_decode_convolution(geometry, remaining) for _ in range(geometry.places)]
    w0, w1, w2, w3 = (given[place] if there else None for place, there in enumerate(mask))
    return BankOp(reads=reads, units=units, writes=writes, convolutions=(w0, w1, w2, w3))


def _decode_selection(remaining: Iterator[int], banks: int) -> list[int]:
    masks = [(part, next(remaining)) for part in selections(banks)]
    return [bank for part, mask in masks for bank in part if mask >> bank - part.start & 1]


def _decode_convolution(geometry: Geometry, remaining: Iterator[int]) -> Convolution:
    k, m, d, e, groups = (_decided(remaining, values) for values in geometry.convolution_values.values())
    return Convolution(kernel=(k, m), dilation=geometry.fit_dilation((k, m), (d, e)), groups=groups)


def _decided(remaining: Iterator[int], options: Sequence[T]) -> T:
    """The option that the next token chooses; of a single one nothing is decided."""
    return options[next(remaining)] if len(options) > 1 else options[0]


def encode(geometry: Geometry, architecture: BankArchitecture) -> Tokens:
    """The tokens that `decode` turns into this architecture. Raises ValueError, which names the block, the operation,
    and what of it the geometry does not have."""
    tokens = tokens_of(geometry, architecture)
    decoded = decode(geometry, tokens)
    for number, (ours, theirs) in enumerate(zip(decoded.blocks, architecture.blocks, strict=True), start=1):
        for place, op in enumerate(theirs.ops):
            if place >= len(ours.ops):
                raise ValueError(f"block {number}: its operations from {place} on cost more than the block's budget")
            if ours.ops[place] != op:
                raise ValueError(f"block {number}, operation {place}: {_difference(ours.ops[place], op)}")
    return tokens


def tokens_of(geometry: Geometry, architecture: BankArchitecture) -> Tokens:
    """`encode` without a look at what would be decoded. Raises ValueError for values that no decision has."""
    tokens: list[int] = []
    for block, described in zip(geometry.block_sizes, architecture.blocks, strict=True):
        where, missing = f"block {block.number + 1}", geometry.max_ops - len(described.ops)
        if missing < 0:
            raise ValueError(f"{where}: {len(described.ops)} operations, the space has at most {geometry.max_ops}")
        tokens.append(_index(block.bank_sizes, described.bank_size, f"{where}: bank size"))
        tokens += [0] * block.most_banks
        tokens.append(len(described.ops) - 1)
        for number, op in enumerate(described.ops):
            tokens += _op_tokens(geometry, op, block.most_banks, f"{where}, operation {number}")
        tokens += [0] * (tokens_per_op(geometry, block) * missing)
    return tuple(tokens)


def _op_tokens(geometry: Geometry, op: BankOp, banks: int, where: str) -> Iterator[int]:
    def selection(selected: Sequence[int], word: str) -> Iterator[int]:
        if selected[-1] >= banks:
            raise ValueError(f"{where}: {word} bank {selected[-1]}, the block has {banks}")
        for part in selections(banks):
            yield sum(1 << bank - part.start for bank in selected if bank in part)

    yield from selection(op.reads, "reads")
    yield _index(geometry.unit_choices, op.units, f"{where}: units")
    yield from selection(op.writes, "writes")
    mask = _index([*geometry.masks], op.mask, f"{where}: convolutions")
    if len(geometry.masks) > 1:
        yield mask
    for convolution in op.convolutions[: geometry.places]:
        if convolution is None:
            yield from [0] * len(geometry.convolution_choices)
            continue
        values = *convolution.kernel, *convolution.dilation, convolution.groups
        for (word, options), value in zip(geometry.convolution_values.items(), values, strict=True):
            if len(options) > 1:
                yield _index(options, value, f"{where}: {word.replace('_', ' ')}")


def _index(options: Sequence[object], value: object, what: str) -> int:
    if value not in options:
        raise ValueError(f"{what} {value} is not among {list(options)}")
    return options.index(value)


def _difference(fitted: BankOp, given: BankOp) -> str:
    """What of an operation does not fit, the first of its parts that differs."""
    if fitted.reads != given.reads:
        return f"reads {list(given.reads)}, what would fit is {list(fitted.reads)}"
    if fitted.units != given.units:
        return f"units {given.units}"
    if fitted.writes != given.writes:
        return f"writes {list(given.writes)}, what would fit is {list(fitted.writes)}"
    return f"convolutions {given.convolutions}"
