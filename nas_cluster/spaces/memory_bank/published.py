"""The networks that the paper's Figure 1 shows as memory banks: residual, densely connected and fractal.

Their blocks are as long as the banks and the budget that are given allow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from nas_cluster.spaces.memory_bank.architecture import BankArchitecture, BankBlock, BankOp, Convolution
from nas_cluster.spaces.memory_bank.sizes import BlockSize
from nas_cluster.spaces.memory_bank.walk import Walk

__all__ = ["dense_net", "fractal_net", "residual_net"]

_PLAIN = Convolution(kernel=(3, 3))
_RESIDUAL_OPS = 6
_GROWTH_UNITS = 2
_FRACTAL_UNITS, _FRACTAL_COLUMNS = 4, 3

Blocks = Sequence[BlockSize]


def residual_net(blocks: Blocks) -> BankArchitecture:
    """Every operation reads and writes one bank: what it computes is added to what is there (He et al. 2016)."""

    def ops(walk: Walk, units: int) -> Iterator[BankOp]:
        for _ in range(_RESIDUAL_OPS):
            yield BankOp(reads=(0,), writes=(0,), units=units, convolutions=(_PLAIN, _PLAIN, None, None))

    return _network(blocks, [block.max_units for block in blocks], ops)


def dense_net(blocks: Blocks) -> BankArchitecture:
    """Every operation reads all banks and writes a new one (Huang et al. 2017, with bottlenecks)."""

    def ops(walk: Walk, units: int) -> Iterator[BankOp]:
        while walk.live < walk.banks:
            yield BankOp(
                reads=tuple(range(walk.live)), writes=(walk.live,), units=units, convolutions=(_PLAIN, None, None, None)
            )

    return _network(blocks, [_GROWTH_UNITS] * 3, ops)


def fractal_net(blocks: Blocks) -> BankArchitecture:
    """There are columns of operations, each half as deep as the one before; where some end together, they write one
    bank, which all that follow read (Larsson et al. 2017; its joins average, here they add)."""

    def ops(walk: Walk, units: int) -> Iterator[BankOp]:
        joins = [tuple(range(walk.live))]
        for time in range(1, 2 ** (_FRACTAL_COLUMNS - 1) + 1):
            written = (walk.live,)
            for column in range(_FRACTAL_COLUMNS):
                if time % 2**column == 0:
                    reads = joins[time - 2**column]
                    yield BankOp(reads=reads, writes=written, units=units, convolutions=(_PLAIN, None, None, None))
            joins.append(written)

    return _network(blocks, [_FRACTAL_UNITS] * 3, ops)


def _network(blocks: Blocks, sizes: Sequence[int], ops: Callable[[Walk, int], Iterator[BankOp]]) -> BankArchitecture:
    described = []
    for block, size in zip(blocks, sizes, strict=True):
        walk = Walk(block, size, block.slices)
        taken: list[BankOp] = []
        for op in ops(walk, size):
            if len(op.reads) > walk.payable:
                break
            taken.append(op)
            walk.take(op)
        described.append(BankBlock(bank_size=size, ops=tuple(taken)))
    first, second, third = described
    return BankArchitecture(blocks=(first, second, third))
