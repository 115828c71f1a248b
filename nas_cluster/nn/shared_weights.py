"""What the networks of all children have in common (Pham et al. 2018, section 2.2).

A space that shares weights builds a child and the network of all children from the same modules under the same names;
the child has only those that its architecture computes. So the child's tensors are found in the shared network by name.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

__all__ = ["initialise_he", "tensors_by_name", "use_batch_statistics"]


def tensors_by_name(shared: nn.Module, is_part: Callable[[list[str]], bool]) -> dict[str, Tensor]:
    """The parameters for whose names, split at the dots, `is_part` holds: by reference, nothing is copied."""
    return {name: parameter for name, parameter in shared.named_parameters() if is_part(name.split("."))}


def use_batch_statistics(module: nn.Module) -> None:
    """From now on every batch norm inside takes mean and variance from the batch, in evaluation too, and keeps none:
    running statistics of one architecture are wrong for another (the released code does the same when it scores)."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.track_running_stats = False
            norm.running_mean = norm.running_var = norm.num_batches_tracked = None


def initialise_he(module: nn.Module) -> None:
    """He's normal initialisation by the fan in (Pham et al. 2018, section 3.2): every convolution, linear layer and
    parameter in a ParameterDict, each by itself. The meta device is left out, where torch takes long to do nothing."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            weights = [part.weight]
        else:
            weights = list(part.values()) if isinstance(part, nn.ParameterDict) else []
        for weight in weights:
            if not weight.is_meta:
                nn.init.kaiming_normal_(weight)
