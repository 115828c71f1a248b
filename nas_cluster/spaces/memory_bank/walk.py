"""A block while its operations are written down one after the other: what the next one may be.

The sampler chooses within these limits; tokens of any other origin, and perturbed architectures, are fitted to them.
"""

from __future__ import annotations

from collections.abc import Sequence

from nas_cluster.spaces.memory_bank.architecture import BankOp
from nas_cluster.spaces.memory_bank.sizes import BlockSize

__all__ = ["Walk"]


class Walk:
    """It counts what a block has. banks: those that there are. live: those that hold something, the first ones. left:
    slices of the budget that are not spent.

    A block of the released defaults has six banks of 32 channels, and its input lives in the first two:

        >>> from nas_cluster.spaces.memory_bank.geometry import Geometry
        >>> walk = Walk(Geometry().block_sizes[0], bank_size=4, budget=10)
        >>> walk.fit_reads([1, 5]), walk.fit_writes(units=4, wanted=[5])
        ((1,), (2,))
        >>> walk.take(BankOp(reads=(1,), writes=(2,), units=4, convolutions=(None,) * 4))
        >>> walk.banks, walk.live, walk.left
        (6, 3, 8)
    """

    def __init__(self, block: BlockSize, bank_size: int, budget: int) -> None:
        self.bank_size = bank_size
        self._step = block.read_step(bank_size)
        self._cost = self._step * bank_size // block.compression
        self.banks = block.banks(bank_size)
        self._most_units = block.most_units(bank_size)
        self.live = block.live(bank_size)
        self.left = max(budget, self._cost)

    @property
    def goes_on(self) -> bool:
        """Whether the budget pays another operation."""
        return self.left >= self._cost

    @property
    def payable(self) -> int:
        """The most banks that an operation may read for what is left; they need not all be live."""
        return self.left // self._cost * self._step

    @property
    def read_counts(self) -> range:
        """How many live banks may be read, whatever is left."""
        return range(self._step, self.live + 1, self._step)

    @property
    def unit_choices(self) -> range:
        """The sizes that an operation's output may have."""
        return range(self.bank_size, self._most_units + 1, self.bank_size)

    def pieces(self, units: int) -> int:
        """How many banks an output fills."""
        return units // self.bank_size

    def new_banks(self, units: int) -> int:
        """How many empty banks an output may begin."""
        return min(self.pieces(units), self.banks - self.live)

    def fit_reads(self, wanted: Sequence[int]) -> tuple[int, ...]:
        """An operation reads those of the banks wanted that are live: the first if they are too many, and the newest
        others if they are too few."""
        reads = [bank for bank in wanted if bank < self.live]
        most = min(self.payable, self.read_counts[-1])
        count = min(max(len(reads) // self._step * self._step, self._step), most)
        others = [bank for bank in reversed(range(self.live)) if bank not in reads]
        return tuple(sorted([*reads[:count], *others[: max(0, count - len(reads))]]))

    def fit_units(self, wanted: int) -> int:
        """The nearest size that is not above the wanted one."""
        return max(self.bank_size, min(wanted // self.bank_size * self.bank_size, self._most_units))

    def fit_writes(self, units: int, wanted: Sequence[int]) -> tuple[int, ...]:
        """An operation writes the live ones of the banks wanted, and as many new ones as were empty; for every piece
        there is at least one: new ones come first, then the newest others."""
        kept = [bank for bank in wanted if bank < self.live]
        new = min(len(wanted) - len(kept), self.new_banks(units))
        missing = max(0, self.pieces(units) - len(kept) - new)
        more = min(missing, self.new_banks(units) - new)
        others = [bank for bank in reversed(range(self.live)) if bank not in kept][: missing - more]
        return tuple(sorted([*kept, *others, *range(self.live, self.live + new + more)]))

    def take(self, op: BankOp) -> None:
        """The operation is written down, and paid for."""
        self.left -= len(op.reads) // self._step * self._cost
        self.live = max(self.live, op.writes[-1] + 1)
