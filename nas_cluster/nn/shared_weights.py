"""What the networks of all children have in common (Pham et al. 2018, section 2.2).

A space that shares weights builds a child and the network of all children from the same modules under the same names;
the child has only those that its architecture computes. So the child's tensors are found in the shared network by name.
"""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakKeyDictionary

from torch import Tensor, nn

__all__ = ["initialise_he", "tensors_by_name", "use_batch_statistics"]

_DEPTH = 5
"""So many parts of a name say to which choice a parameter belongs: cells.3.output.weights.2."""
_UNITS: WeakKeyDictionary[nn.Module, dict[tuple[str, ...], list[tuple[str, Tensor]]]] = WeakKeyDictionary()
"""Networks of all children to their named parameters, by the beginning of the names: a network has thousands, and each
of its children is asked for once."""


def tensors_by_name(shared: nn.Module, is_part: Callable[[list[str]], bool]) -> dict[str, Tensor]:
    """The parameters for whose names `is_part` holds, by reference: nothing is copied. It is given the first
    `_DEPTH` parts of a name split at the dots, once for all names that begin so."""
    if shared not in _UNITS:
        units = _UNITS.setdefault(shared, {})
        for name, parameter in shared.named_parameters():
            units.setdefault(tuple(name.split(".")[:_DEPTH]), []).append((name, parameter))
    return {name: tensor for unit, named in _UNITS[shared].items() if is_part([*unit]) for name, tensor in named}


def use_batch_statistics(module: nn.Module) -> None:
    """From now on every batch norm inside takes mean and variance from the batch, in evaluation too, and keeps none:
    running statistics of one architecture are wrong for another (the released code does the same when it scores)."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.track_running_stats = False
            norm.running_mean = norm.running_var = norm.num_batches_tracked = None


def initialise_he(module: nn.Module) -> None:
    """Weights start as He's normal initialisation has them, by the fan in (Pham et al. 2018, section 3.2): those of
    every convolution and linear layer, and every parameter in a ParameterDict, each by itself. The meta device is left
    out, where torch takes long to do nothing."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            weights = [part.weight]
        else:
            weights = list(part.values()) if isinstance(part, nn.ParameterDict) else []
        for weight in weights:
            if not weight.is_meta:
                nn.init.kaiming_normal_(weight)
