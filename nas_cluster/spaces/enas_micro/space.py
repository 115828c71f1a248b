"""ENAS's micro search space: two cells of N computed nodes each (Pham et al. 2018, section 2.4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from nas_cluster.core.decisions import Decision, DecisionSpec, Tokens
from nas_cluster.core.drawing import Drawing
from nas_cluster.core.errors import ConfigError
from nas_cluster.core.task import ImageTask
from nas_cluster.spaces._cells.pictures import draw_steps, summarise_steps
from nas_cluster.spaces._words import named_once
from nas_cluster.spaces.base import Architecture, SearchSpace
from nas_cluster.spaces.enas_micro.architecture import (
    CELLS,
    OPERATIONS,
    Cell,
    CellNode,
    MicroArchitecture,
    MicroChildOptions,
    Operation,
)
from nas_cluster.spaces.enas_micro.canonical import canonical_cell
from nas_cluster.spaces.enas_micro.published import published

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ENASMicro"]


class ENASMicro(SearchSpace[MicroArchitecture]):
    """Per node of either cell: two earlier states and an operation on each; the normal cell first."""

    architecture_type: ClassVar[type[Architecture]] = MicroArchitecture
    shares_weights: ClassVar[bool] = True

    preset: Literal["paper", "release"] = "paper"
    """release: as the released code searches, a reduction halves its input before the cell, which keeps that size, and
    both of the cell's inputs are the same map; the normal cell's decisions favour convolutions. The final network is
    the same in both."""
    nodes: int = Field(5, ge=1, le=12)
    """Computed nodes of a cell: the paper's B less the two inputs."""
    operations: Annotated[tuple[Operation, ...], Field(min_length=1), AfterValidator(named_once)] = OPERATIONS
    child: MicroChildOptions = MicroChildOptions()

    @property
    def _halves_before(self) -> bool:
        """Whether networks halve a map before a reduction cell, and not in it."""
        return self.preset == "release" and self.child.form == "search"

    def decisions(self) -> DecisionSpec:
        """Per cell an anchor for either input, then per node: input 1, input 2, operation 1, operation 2, an anchor.

        Inputs are chosen by attention over the anchors of earlier states. Both cells share all groups, as the released
        controller runs the same weights on through the second.
        """
        decisions: list[Decision] = []
        for cell in CELLS:
            anchors: list[int] = []
            for number in range(-2, self.nodes):
                if number >= 0:
                    decisions += self._node_decisions(cell, number, tuple(anchors))
                anchors.append(len(decisions))
                decisions.append(Decision(f"{cell}.{_STATES[number + 2].replace(' ', '_')}", "anchor", 1, "anchor"))
        return DecisionSpec(decisions)

    def _node_decisions(self, cell: str, number: int, anchors: tuple[int, ...]) -> Iterator[Decision]:
        name, states = f"{cell}.node_{number}", len(anchors)
        bias: tuple[float, ...] = ()
        if self.preset == "release" and cell == "normal":
            bias = tuple(_RELEASED_BIAS if word.startswith("sep_conv") else -_RELEASED_BIAS for word in self.operations)
        for half in (1, 2):
            yield Decision(f"{name}.input_{half}", "pointer", states, "input", anchors, _STATES[:states])
        for half in (1, 2):
            words = self.operations
            yield Decision(f"{name}.operation_{half}", "choice", len(words), "operation", labels=words, bias=bias)

    def decode(self, tokens: Sequence[int]) -> MicroArchitecture:
        """Tokens (T) to a pair of cells."""
        spec = self.decisions()
        chosen = [t for t, d in zip(spec.check(tokens), spec, strict=True) if d.head != "anchor"]
        nodes = [
            CellNode(inputs=(chosen[i], chosen[i + 1]), operations=self._words(chosen[i + 2], chosen[i + 3]))
            for i in range(0, len(chosen), 4)
        ]
        normal, reduction = nodes[: self.nodes], nodes[self.nodes :]
        return MicroArchitecture(normal=Cell(nodes=tuple(normal)), reduction=Cell(nodes=tuple(reduction)))

    def _words(self, first: int, second: int) -> tuple[Operation, Operation]:
        return self.operations[first], self.operations[second]

    def encode(self, architecture: MicroArchitecture) -> Tokens:
        """Inverse of `decode`. Raises ValueError: the cell, and what of it this space does not have."""
        chosen: list[int] = []
        for name, cell in architecture.cells:
            if len(cell.nodes) != self.nodes:
                raise ValueError(f"{name} cell: {len(cell.nodes)} nodes, the space has {self.nodes}")
            for number, node in enumerate(cell.nodes):
                for operation in node.operations:
                    if operation not in self.operations:
                        raise ValueError(
                            f"{name} cell, node {number}: {operation} is not among {list(self.operations)}"
                        )
                chosen += [*node.inputs, *map(self.operations.index, node.operations)]
        values = iter(chosen)
        return tuple(0 if d.head == "anchor" else next(values) for d in self.decisions())

    def canonical(self, architecture: MicroArchitecture) -> MicroArchitecture:
        """Halves and nodes of both cells in a fixed order (canonical.py)."""
        return MicroArchitecture(
            normal=canonical_cell(architecture.normal), reduction=canonical_cell(architecture.reduction)
        )

    def build_child(self, architecture: MicroArchitecture, task: ImageTask) -> nn.Module:
        """The child network (child.py)."""
        from nas_cluster.spaces.enas_micro.child import MicroChild

        return MicroChild(architecture, task, self.child, halves_before=self._halves_before)

    def build_shared(self, task: ImageTask) -> nn.Module:
        """The network of all children (shared.py). Raises ConfigError with `child.form` final."""
        from nas_cluster.spaces.enas_micro.shared import SharedMicro

        if self.child.form == "final":
            raise ConfigError(
                "space.child.form: final networks share no weights, as each cell's width depends on its loose ends; "
                "write 'form: search', and 'scale: {form: final}' where the winner is retrained"
            )
        return SharedMicro(self.nodes, self.operations, task, self.child, halves_before=self._halves_before)

    def summary(self, architecture: MicroArchitecture) -> str:
        """`s5₀s3₁ a3₀id₁ ... / ...`: both cells, an operation and its state twice per node."""
        return " / ".join(summarise_steps(cell.steps) for _, cell in architecture.cells)

    def draw(self, architecture: MicroArchitecture) -> list[Drawing]:
        """The normal cell and the reduction cell."""
        return [
            draw_steps(cell.steps, cell.loose_ends, inputs=_STATES[:2], word="node", title=f"{name} cell")
            for name, cell in architecture.cells
        ]

    @classmethod
    def named(cls) -> Mapping[str, MicroArchitecture]:
        """`published`: the cells of the released code's final network."""
        return published()


_RELEASED_BIAS = 0.25
_STATES = ("cell before", "previous cell", *(f"node {number}" for number in range(12)))
