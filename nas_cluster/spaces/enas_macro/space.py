"""ENAS's macro search space: an operation and a set of earlier layers per layer (Pham et al. 2018, section 2.3)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from nas_cluster.core.decisions import Decision, DecisionSpec, Tokens
from nas_cluster.core.drawing import Drawing
from nas_cluster.core.task import ImageTask
from nas_cluster.spaces._words import named_once
from nas_cluster.spaces.base import Architecture, SearchSpace
from nas_cluster.spaces.enas_macro.architecture import (
    OPERATIONS,
    MacroArchitecture,
    MacroChildOptions,
    MacroLayer,
    Operation,
    Wiring,
)
from nas_cluster.spaces.enas_macro.pictures import draw_network, summarise
from nas_cluster.spaces.enas_macro.published import published

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ENASMacro"]


class ENASMacro(SearchSpace[MacroArchitecture]):
    """Per layer: an operation, then which earlier layers it is connected to."""

    architecture_type: ClassVar[type[Architecture]] = MacroArchitecture
    shares_weights: ClassVar[bool] = True

    preset: Literal["paper", "release"] = "paper"
    """paper: a layer reads the layers it selects, concatenated; release: it reads the layer before, and the maps it
    selects are skip connections around it."""
    layers: int = Field(12, ge=1, le=63)
    operations: Annotated[tuple[Operation, ...], Field(min_length=1), AfterValidator(named_once)] = OPERATIONS
    child: MacroChildOptions = MacroChildOptions()

    @property
    def wiring(self) -> Wiring:
        """How networks of this space are wired."""
        return "inputs" if self.preset == "paper" else "skips"

    def decisions(self) -> DecisionSpec:
        """Per layer: operation, connections. The step that chooses connections is what later layers attend to, so the
        first layer has it too, as an anchor."""
        return DecisionSpec(list(self._decisions()))

    def _decisions(self) -> Iterator[Decision]:
        words = self.operations
        for number in range(1, self.layers + 1):
            yield Decision(f"layer_{number}.operation", "choice", len(words), "operation", labels=words)
            if number == 1:
                yield Decision("layer_1", "anchor", 1, "reads")
            else:
                anchors = tuple(2 * earlier + 1 for earlier in range(number - 1))
                labels = tuple(f"layer {m}" if m else "stem" for m in self._candidates(number))
                yield Decision(f"layer_{number}.reads", "skips", number - 1, "reads", anchors, labels)

    def _candidates(self, number: int) -> range:
        """Maps that bit 0, 1, ... of layer `number` stand for."""
        return range(1, number) if self.wiring == "inputs" else range(number - 1)

    def decode(self, tokens: Sequence[int]) -> MacroArchitecture:
        """Tokens (T) to an architecture. Wired as inputs, a layer that selects nothing reads the stem."""
        checked = self.decisions().check(tokens)
        layers = []
        for number, (operation, mask) in enumerate(zip(checked[::2], checked[1::2], strict=True), start=1):
            reads = tuple(m for j, m in enumerate(self._candidates(number)) if mask >> j & 1)
            if self.wiring == "inputs" and not reads:
                reads = (0,)
            layers.append(MacroLayer(operation=self.operations[operation], reads=reads))
        return MacroArchitecture(layers=tuple(layers), wiring=self.wiring)

    def encode(self, architecture: MacroArchitecture) -> Tokens:
        """Inverse of `decode`. Raises ValueError: the layer, and what of it this space does not have."""
        if architecture.wiring != self.wiring:
            raise ValueError(f"wired as {architecture.wiring}, networks of preset {self.preset} as {self.wiring}")
        if len(architecture.layers) != self.layers:
            raise ValueError(f"{len(architecture.layers)} layers, the space has {self.layers}")
        tokens: list[int] = []
        for number, layer in enumerate(architecture.layers, start=1):
            if layer.operation not in self.operations:
                raise ValueError(f"layer {number}: {layer.operation} is not among {list(self.operations)}")
            candidates = self._candidates(number)
            reads = () if self.wiring == "inputs" and layer.reads == (0,) else layer.reads
            outside = set(reads) - set(candidates)
            if outside:
                raise ValueError(f"layer {number}: reads map {min(outside)}, it may select {list(candidates)}")
            tokens += [self.operations.index(layer.operation), sum(1 << candidates.index(m) for m in reads)]
        return tuple(tokens)

    def build_child(self, architecture: MacroArchitecture, task: ImageTask) -> nn.Module:
        """The child network (child.py), wired as the architecture says."""
        from nas_cluster.spaces.enas_macro.child import MacroChild

        return MacroChild(architecture, task, self.child)

    def build_shared(self, task: ImageTask) -> nn.Module:
        """The network of all children (shared.py)."""
        from nas_cluster.spaces.enas_macro.shared import SharedMacro

        return SharedMacro(self.layers, self.operations, self.wiring, task, self.child)

    def summary(self, architecture: MacroArchitecture) -> str:
        """`c3 s5 m3 ... · 12 connections`."""
        return summarise(architecture)

    def draw(self, architecture: MacroArchitecture) -> list[Drawing]:
        """Every layer with the maps it reads, the classifier below."""
        return [draw_network(architecture)]

    @classmethod
    def named(cls) -> Mapping[str, MacroArchitecture]:
        """`published`: the 24 layers of the released code's final network."""
        return published()
