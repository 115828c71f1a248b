"""From N repeats and F filters to the list of a network's cells (Zoph et al. 2018, Figure 2, and its released code).

Maps are numbered: 0 is the stem's output, j that of the j-th cell.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PlacedCell", "assemble", "live_maps"]


@dataclass(frozen=True)
class PlacedCell:
    """A cell stands in a network under a name; it has filters and reads two maps.

    before: the map of the cell before the previous one; None in the first cell, which reads `previous` twice.

    >>> first, reduction, *_ = assemble(num_cells=1, filters=8, stem_cells=0, skip_reduction=False)
    >>> first.name, first.previous, first.before
    ('normal_0', 0, None)
    >>> reduction.name, reduction.filters, reduction.previous, reduction.before
    ('reduction_0', 16, 1, 0)
    """

    name: str
    reduces: bool
    filters: int
    previous: int
    before: int | None


def assemble(num_cells: int, filters: int, *, stem_cells: int, skip_reduction: bool) -> list[PlacedCell]:
    """List the cells in order: `stem_cells` reductions, N normal, reduction, N normal, reduction, N normal.

    Filters double at each reduction; the first normal cell has F. skip_reduction: the normal cell after a reduction
    reads, as the cell before, the one that the reduction itself read as such.
    """
    cells: list[PlacedCell] = []

    def place(name: str, width: float, before: int | None) -> None:
        cells.append(PlacedCell(name, not name.startswith("normal"), int(width), len(cells), before))

    def cell_before() -> int | None:
        return len(cells) - 1 if cells else None

    for number in range(stem_cells):
        place(f"stem_{number}", filters / 2 ** (stem_cells - number), cell_before())
    width = filters
    for number in range(3 * num_cells):
        before = cell_before()
        if number in (num_cells, 2 * num_cells):
            width *= 2
            place(f"reduction_{number // num_cells - 1}", width, before)
            before = before if skip_reduction else cell_before()
        place(f"normal_{number}", width, before)
    return cells


def live_maps(cells: list[PlacedCell], reads: dict[bool, tuple[bool, bool]], roots: set[int]) -> set[int]:
    """Find the maps that something reads, from `roots` backwards.

    reads: per kind of cell (whether it reduces), whether it reads the previous map and the one before it.
    """
    live = set(roots)
    for number in range(len(cells), 0, -1):
        cell = cells[number - 1]
        if number in live:
            of_previous, of_before = reads[cell.reduces]
            if of_previous or (of_before and cell.before is None):
                live.add(cell.previous)
            if of_before and cell.before is not None:
                live.add(cell.before)
    return live
