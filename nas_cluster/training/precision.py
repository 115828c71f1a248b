"""Which number format a child is trained in. See README.md for why."""

from __future__ import annotations

from functools import cache

import torch
from torch import nn

from nas_cluster.training.settings import ImageSettings

__all__ = ["choose_precision", "has_native_bfloat16"]


@cache
def has_native_bfloat16(device_type: str) -> bool:
    """Whether this device multiplies bfloat16 in hardware (AVX-512 BF16 or AMX; CUDA from compute capability 8)."""
    if device_type == "cuda":
        return torch.cuda.is_available() and torch.cuda.get_device_capability()[0] >= 8
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def choose_precision(settings: ImageSettings, model: nn.Module, device_type: str) -> tuple[torch.dtype, str]:
    """The dtype of a child's convolutions and the reason, for its record."""
    if settings.precision != "auto":
        return getattr(torch, settings.precision), "asked for"
    if not has_native_bfloat16(device_type):
        return torch.float32, "no native bfloat16 on this device"
    if device_type == "cpu" and any(_is_depthwise(m) for m in model.modules()):
        return torch.float32, "depthwise convolutions are slower in bfloat16 on a CPU"
    return torch.bfloat16, "native bfloat16"


def _is_depthwise(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1
