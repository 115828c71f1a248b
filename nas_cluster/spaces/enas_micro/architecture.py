"""A pair of cells as plain data, and how a child is built from it.

States of a cell: 0 is the output of the cell before the previous one, 1 that of the previous cell, 2.. its nodes.
"""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field, field_validator

from nas_cluster.core.component import Options
from nas_cluster.spaces._cells.step import INPUTS, Step, check_reads
from nas_cluster.spaces.base import Architecture

__all__ = ["CELLS", "OPERATIONS", "Cell", "CellNode", "MicroArchitecture", "MicroChildOptions", "Operation"]

Operation = Literal["sep_conv_3x3", "sep_conv_5x5", "avg_pool_3x3", "max_pool_3x3", "identity"]

OPERATIONS: tuple[Operation, ...] = get_args(Operation)
"""The five operations of Pham et al. 2018, section 2.4, in the order of the released code's numbers."""
CELLS = ("normal", "reduction")
"""The fields of `MicroArchitecture`, in the order in which they are decided."""


class CellNode(Options):
    """A node does an operation on each of two states and adds the results.

    >>> node = CellNode(inputs=(0, 1), operations=("identity", "sep_conv_3x3"))
    >>> node.halves
    ((0, 'identity'), (1, 'sep_conv_3x3'))
    """

    inputs: tuple[int, int]
    operations: tuple[Operation, Operation]

    @property
    def halves(self) -> tuple[tuple[int, Operation], ...]:
        """(state, operation) twice."""
        return tuple(zip(self.inputs, self.operations, strict=True))

    @classmethod
    def of(cls, step: Step) -> CellNode:
        """The node of a step."""
        inputs, operations = zip(*step.halves, strict=True)
        return cls.model_validate({"inputs": inputs, "operations": operations})


class Cell(Options):
    """A cell has nodes in an order in which each reads only earlier states.

    >>> reads_an_input = CellNode(inputs=(1, 1), operations=("identity", "sep_conv_3x3"))
    >>> reads_the_node = CellNode(inputs=(2, 2), operations=("identity", "sep_conv_3x3"))
    >>> Cell(nodes=(reads_an_input, reads_the_node)).loose_ends
    (0, 3)
    """

    nodes: tuple[CellNode, ...] = Field(min_length=1)

    @field_validator("nodes")
    @classmethod
    def _read_backwards(cls, nodes: tuple[CellNode, ...]) -> tuple[CellNode, ...]:
        check_reads((node.inputs for node in nodes), "node")
        return nodes

    @property
    def steps(self) -> tuple[Step, ...]:
        """Its nodes as steps."""
        return tuple(Step(node.halves, "add") for node in self.nodes)

    @property
    def loose_ends(self) -> tuple[int, ...]:
        """The states that no node reads, the cell's inputs among them; the output is made of these."""
        read = {state for node in self.nodes for state in node.inputs}
        return tuple(state for state in range(len(self.nodes) + INPUTS) if state not in read)


class MicroArchitecture(Architecture):
    """The normal cell keeps the size of its input, the reduction cell halves it."""

    normal: Cell
    reduction: Cell

    @property
    def cells(self) -> tuple[tuple[str, Cell], ...]:
        """Both with their names, in the order of `CELLS`."""
        return tuple(zip(CELLS, (self.normal, self.reduction), strict=True))


class MicroChildOptions(Options):
    """How a child is built from a pair of cells."""

    form: Literal["search", "final"] = "search"
    """search: every cell's output is brought back to its width, which lets children share weights; final: loose ends
    are concatenated, and a 1x1 convolution more comes before each cell."""
    layers: int = Field(6, ge=1)
    """Normal cells; two reduction cells come on top."""
    filters: int = Field(20, ge=2)
    """F of the first cells; each reduction doubles them."""
    stem_multiplier: int = Field(3, ge=1)
    """The stem's convolution has so many times F filters."""
    auxiliary: bool = False
    """A second classifier after the cell behind the second reduction, in training only."""
    drop_path_keep: float = Field(1.0, gt=0, le=1)
    """Probability of keeping a path in the last cell at the end of training (0.6 in the released scripts)."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of the classifier's inputs that is dropped (0.1 in the released search, 0.2 for the final network)."""
