"""One cell as a torch module.

Shapes: N images, C channels, F filters of the cell, H W height and width. All states of a cell have F filters, except
that of the cell before where it is taken as it is (in the first cell: the stem's output).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from nas_cluster.nn.concatenate import concatenate
from nas_cluster.nn.convolutions import ConvNorm, FactorisedReduction
from nas_cluster.nn.drop_path import drop_path
from nas_cluster.nn.feature_map import FeatureMap
from nas_cluster.spaces.nasnet_cell.architecture import Block, Cell
from nas_cluster.spaces.nasnet_cell.operations import make_operation, reads_rectified

__all__ = ["CellModule"]


class CellModule(nn.Module):
    """The cell reads the maps of the previous cell and of the cell before it, and concatenates states.

    channels: of the previous map. before: channels of the map before it and whether that one is larger; None where
    there is none and the previous map takes its place.
    """

    def __init__(
        self, cell: Cell, filters: int, *, reduces: bool, channels: int, before: tuple[int, bool] | None
    ) -> None:
        super().__init__()
        self._outputs = cell.outputs
        self.squeeze = ConvNorm(channels, filters) if cell.reads(0) else None
        self.adjust, width = _adjusted(filters, channels, before) if cell.reads(1) else (None, filters)
        widths = [filters, width] + [filters] * len(cell.blocks)
        blocks = [
            _BlockModule(block, [widths[state] for state in block.inputs], filters, reduces=reduces)
            for block in cell.blocks
        ]
        self.blocks = nn.ModuleList(blocks)
        self.calibrate = nn.ModuleDict()
        for state in set(cell.outputs) & {0, 1}:
            if reduces:
                self.calibrate[str(state)] = FactorisedReduction(widths[state], filters)
            elif widths[state] != filters:
                self.calibrate[str(state)] = ConvNorm(widths[state], filters)
        raw = {*cell.outputs, *(state for block in blocks for state in block.reads_raw)}
        self._spare = [state not in raw for state in range(len(widths))]
        self.reads_before_raw = cell.reads(1) and self.adjust is None and not self._spare[1]

    def forward(self, previous: FeatureMap | None, before: FeatureMap | None, keep: Tensor | None) -> Tensor:
        """(N, channels of the output, H', W'). A map that the cell does not read may be None.

        keep: probability of keeping a path, without dimensions; None where no path is dropped.
        """
        states = [previous, before]
        for number, module in enumerate((self.squeeze, self.adjust)):
            if module is not None:
                source = states[number]
                assert source is not None
                states[number] = FeatureMap(module(source.rectified), spare=self._spare[number])
        for block, spare in zip(self.blocks, self._spare[2:], strict=True):
            states.append(FeatureMap(block(states, keep), spare=spare))
        outputs = []
        for number in self._outputs:
            state = states[number]
            assert state is not None
            name = str(number)
            outputs.append(self.calibrate[name](state.raw) if name in self.calibrate else state.raw)
        return concatenate(outputs)


def _adjusted(filters: int, channels: int, before: tuple[int, bool] | None) -> tuple[nn.Module | None, int]:
    """How the map of the cell before becomes state 1, and that state's width. The module reads the rectified map."""
    if before is None:
        return None, channels
    width, larger = before
    if larger:
        return FactorisedReduction(width, filters), filters
    return (None, width) if width == filters else (ConvNorm(width, filters), filters)


class _BlockModule(nn.Module):
    """A block adds the results of two operations; or it concatenates them and brings them back to F filters by ReLU,
    1x1 convolution and batch norm."""

    def __init__(self, block: Block, widths: list[int], filters: int, *, reduces: bool) -> None:
        super().__init__()
        self._inputs = block.inputs
        strides = [2 if reduces and state < 2 else 1 for state in block.inputs]
        self.operations = nn.ModuleList(map(make_operation, block.operations, widths, [filters] * 2, strides))
        self.merge = ConvNorm(2 * filters, filters) if block.combination == "concat" else None
        self._rectified = list(map(reads_rectified, block.operations, self.operations))
        self._drops = [operation != "identity" for operation in block.operations]
        self._fresh = [not isinstance(module, nn.Identity) for module in self.operations]
        self.reads_raw = {
            state for state, rectified in zip(block.inputs, self._rectified, strict=True) if not rectified
        }

    def forward(self, states: list[FeatureMap | None], keep: Tensor | None) -> Tensor:
        """(N, F, H', W')."""
        results = []
        for number, operation, rectified, drops in zip(
            self._inputs, self.operations, self._rectified, self._drops, strict=True
        ):
            state = states[number]
            assert state is not None
            y = operation(state.rectified if rectified else state.raw)
            results.append(drop_path(y, keep) if keep is not None and drops else y)
        first, second = results
        if self.merge is not None:
            merged: Tensor = self.merge(F.relu(concatenate(results), inplace=True))
            return merged
        if self._fresh[0]:
            return first.add_(second)
        return second.add_(first) if self._fresh[1] else first + second
