"""ENAS's micro search space: two cells of N computed nodes each (Pham et al. 2018, section 2.4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from nas_cluster.core.component import Options
from nas_cluster.core.decisions import Decision, DecisionSpec, Tokens
from nas_cluster.core.drawing import Drawing
from nas_cluster.core.errors import ConfigError
from nas_cluster.core.task import ImageTask
from nas_cluster.spaces.base import Architecture, SearchSpace
from nas_cluster.spaces.enas_micro.architecture import CELLS, OPERATIONS, Cell, CellNode, MicroArchitecture, Operation
from nas_cluster.spaces.enas_micro.canonical import canonical_cell
from nas_cluster.spaces.enas_micro.pictures import draw_cell, summarise_cell
from nas_cluster.spaces.enas_micro.published import PUBLISHED

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ENASMicro", "MicroChildOptions"]


def _different(words: tuple[Operation, ...]) -> tuple[Operation, ...]:
    if len(set(words)) < len(words):
        raise ValueError("the same word twice")
    return words


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
    operations: Annotated[tuple[Operation, ...], Field(min_length=1), AfterValidator(_different)] = OPERATIONS
    child: MicroChildOptions = MicroChildOptions()

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
        for name in CELLS:
            cell: Cell = getattr(architecture, name)
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

        return MicroChild(architecture, task, self)

    def build_shared(self, task: ImageTask) -> nn.Module:
        """The network of all children (shared.py). Raises ConfigError with `child.form` final."""
        from nas_cluster.spaces.enas_micro.shared import SharedMicro

        if self.child.form == "final":
            raise ConfigError(
                "space.child.form: final networks share no weights, as each cell's width depends on its loose ends; "
                "write 'form: search', and 'scale: {form: final}' where the winner is retrained"
            )
        return SharedMicro(task, self)

    def summary(self, architecture: MicroArchitecture) -> str:
        """Both cells as `a3₀+s3₀ ...`: operation and state, twice per node."""
        return " / ".join(summarise_cell(getattr(architecture, cell)) for cell in CELLS)

    def draw(self, architecture: MicroArchitecture) -> list[Drawing]:
        """The normal cell and the reduction cell."""
        return [draw_cell(getattr(architecture, cell), f"{cell} cell") for cell in CELLS]

    @classmethod
    def named(cls) -> Mapping[str, MicroArchitecture]:
        """`published`: the cells of the released code's final network."""
        cells = {
            name: Cell(
                nodes=tuple(
                    CellNode(inputs=(x, y), operations=(OPERATIONS[x_operation], OPERATIONS[y_operation]))
                    for x, x_operation, y, y_operation in rows
                )
            )
            for name, rows in PUBLISHED.items()
        }
        return {"published": MicroArchitecture(**cells)}


_RELEASED_BIAS = 0.25
_STATES = ("cell before", "previous cell", *(f"node {number}" for number in range(12)))
