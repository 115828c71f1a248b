"""The network of all children of this space: every operation and connection; one architecture's are computed."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from nas_cluster.core.errors import InvalidArchitecture
from nas_cluster.core.task import ImageTask
from nas_cluster.nn.shared_weights import tensors_by_name, use_batch_statistics
from nas_cluster.spaces.enas_macro.architecture import (
    MacroArchitecture,
    MacroChildOptions,
    Operation,
    Wiring,
)
from nas_cluster.spaces.enas_macro.child import MacroNetwork, Parts

__all__ = ["SharedMacro"]


class SharedMacro(MacroNetwork):
    """The network maps images and an architecture to logits (N, classes). Two architectures share a layer's operation,
    and the matrix of a layer and a map that it reads, where both have them; norms belong to layers and operations."""

    def __init__(
        self,
        layers: int,
        operations: Sequence[Operation],
        wiring: Wiring,
        task: ImageTask,
        options: MacroChildOptions,
    ) -> None:
        self._wiring = wiring
        super().__init__(Parts.of_all(layers, operations, wiring), wiring, task, options)
        use_batch_statistics(self)

    def forward(self, images: Tensor, architecture: MacroArchitecture) -> Tensor:
        """Logits. Raises InvalidArchitecture for one that is wired otherwise, or has another number of layers."""
        if architecture.wiring != self._wiring or len(architecture.layers) != len(self.layers):
            raise InvalidArchitecture(
                f"{len(architecture.layers)} layers wired as {architecture.wiring}; the shared network has "
                f"{len(self.layers)}, wired as {self._wiring}"
            )
        return self.logits(images, architecture)

    def tensors_of(self, architecture: MacroArchitecture) -> dict[str, Tensor]:
        """The child's parameters by name, by reference."""
        parts = Parts.of(architecture)

        def is_part(name: list[str]) -> bool:
            match name:
                case ["layers", number, "operations", operation, *_]:
                    return operation in parts.layers[int(number)][0]
                case ["layers", number, "join", "weights", m]:
                    own = self._wiring == "skips" and int(m) == int(number) + 1
                    return own or int(m) in parts.layers[int(number)][1]
                case ["reductions", place, m, *_]:
                    return int(m) in parts.halved[int(place)]
                case ["classifier", "weights", m]:
                    return int(m) in parts.classified
            return True

        return tensors_by_name(self, is_part)
