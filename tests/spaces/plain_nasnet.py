"""NASNet's cells as most public code writes them: a ReLU in every operation, nn.Conv2d for everything, nothing shared.

The reference that children of `nasnet_cell` are compared with, in outputs, gradients and speed. Its parameters come in
the same order as theirs. CIFAR stem; no drop path, no auxiliary classifier.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from nas_cluster.nn.padding import same_padding


def pair(value):
    return value if isinstance(value, tuple) else (value, value)


class Same(nn.Module):
    """TensorFlow's SAME: zeros (or `value`) around the image, then a VALID convolution or pool."""

    def __init__(self, layer, value=0.0):
        super().__init__()
        self.layer, self.value = layer, value

    def forward(self, x):
        kernel, stride = pair(self.layer.kernel_size), pair(self.layer.stride)
        dilation = pair(getattr(self.layer, "dilation", 1))
        (top, bottom), (left, right) = (
            same_padding(*a) for a in zip(x.shape[2:], kernel, stride, dilation, strict=True)
        )
        return self.layer(F.pad(x, (left, right, top, bottom), value=self.value))


def conv(c, f, k=1, stride=1, dilation=1, groups=1):
    return Same(nn.Conv2d(c, f, k, stride, dilation=dilation, groups=groups, bias=False))


def relu_conv_norm(c, f, k=1, stride=1, dilation=1):
    return nn.Sequential(nn.ReLU(), conv(c, f, k, stride, dilation), nn.BatchNorm2d(f))


def separable(c, f, k, stride):
    return nn.Sequential(
        nn.ReLU(), conv(c, c, k, stride, groups=c), conv(c, f), nn.BatchNorm2d(f),
        nn.ReLU(), conv(f, f, k, groups=f), conv(f, f), nn.BatchNorm2d(f),
    )  # fmt: skip


class Average(nn.Module):
    """Divides by the pixels that exist."""

    def __init__(self, stride):
        super().__init__()
        self.pool = Same(nn.AvgPool2d(3, stride))

    def forward(self, x):
        return self.pool(x) / self.pool(torch.ones_like(x[:1, :1]))


class Reduction(nn.Module):
    def __init__(self, c, f):
        super().__init__()
        self.a, self.b = nn.Conv2d(c, f // 2, 1, 2, bias=False), nn.Conv2d(c, f - f // 2, 1, 2, bias=False)
        self.norm = nn.BatchNorm2d(f)

    def forward(self, x):
        return self.norm(torch.cat([self.a(x), self.b(F.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:])], 1))


def operation(name, c, f, stride):
    k = int(name[-1]) if name[-1].isdigit() else 1
    if name == "identity":
        return nn.Identity() if stride == 1 and c == f else relu_conv_norm(c, f, 1, stride)
    if "pool" in name:
        plain_average = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
        average = plain_average if stride == 1 else Average(stride)
        pool = average if "avg" in name else Same(nn.MaxPool2d(k, stride), -math.inf)
        return pool if c == f else nn.Sequential(pool, nn.Conv2d(c, f, 1, bias=False), nn.BatchNorm2d(f))
    if name.startswith("sep"):
        return separable(c, f, k, stride)
    if name in ("conv_1x3_3x1", "conv_1x7_7x1"):
        k = int(name[-3])
        return nn.Sequential(
            nn.ReLU(), conv(c, f, (1, k), (1, stride)), conv(f, f, (k, 1), (stride, 1)), nn.BatchNorm2d(f)
        )
    return relu_conv_norm(c, f, k, stride, 2 if name.startswith("dil") else 1)


class PlainCell(nn.Module):
    def __init__(self, cell, f, c, before, reduces):
        super().__init__()
        self.cell = cell
        widths = [f, c, *[f] * len(cell.blocks)]
        self.squeeze = relu_conv_norm(c, f) if cell.reads(0) else None
        self.adjust = None
        if before is not None and cell.reads(1):
            c_before, larger = before
            if larger:
                self.adjust = nn.Sequential(nn.ReLU(), Reduction(c_before, f))
            elif c_before != f:
                self.adjust = relu_conv_norm(c_before, f)
            widths[1] = f
        self.operations = nn.ModuleList()
        for block in cell.blocks:
            group = nn.ModuleList(operation(op, widths[s], f, 2 if reduces and s < 2 else 1) for s, op in block.halves)
            group.append(relu_conv_norm(2 * f, f) if block.combination == "concat" else nn.Identity())
            self.operations.append(group)
        self.calibrate = nn.ModuleDict()
        for state in {0, 1} & set(cell.outputs):
            if reduces:
                self.calibrate[str(state)] = Reduction(widths[state], f)
            elif widths[state] != f:
                self.calibrate[str(state)] = nn.Sequential(conv(widths[state], f), nn.BatchNorm2d(f))

    def forward(self, x, before):
        states = [self.squeeze(x) if self.squeeze else None, self.adjust(before) if self.adjust else before]
        for block, (first, second, merge) in zip(self.cell.blocks, self.operations, strict=True):
            a, b = (op(states[s]) for op, s in zip((first, second), block.inputs, strict=True))
            states.append(a + b if block.combination == "add" else merge(torch.cat([a, b], 1)))
        outputs = [
            self.calibrate[str(state)](states[state]) if str(state) in self.calibrate else states[state]
            for state in self.cell.outputs
        ]
        return torch.cat(outputs, 1)


class PlainNASNet(nn.Module):
    """N normal cells, reduction, N normal, reduction, N normal; every cell must be read (`reads(0)` in both)."""

    def __init__(self, architecture, channels, classes, num_cells, filters):
        super().__init__()
        self.stem = nn.Sequential(conv(channels, 3 * filters, 3), nn.BatchNorm2d(3 * filters))
        self.cells, widths, f, reduced = nn.ModuleList(), [3 * filters], filters, False
        for number in range(3 * num_cells):
            for reduces in [True, False] if number in (num_cells, 2 * num_cells) else [False]:
                f = 2 * f if reduces else f
                cell = architecture.reduction if reduces else architecture.normal
                before = (widths[-2], reduced) if len(widths) > 1 else None
                self.cells.append(PlainCell(cell, f, widths[-1], before, reduces))
                widths.append(f * len(cell.outputs))
                reduced = reduces
        self.classifier = nn.Linear(widths[-1], classes)

    def forward(self, images):
        x = self.stem(images)
        before = x
        for cell in self.cells:
            before, x = x, cell(x, before)
        return self.classifier(F.relu(x).mean(dim=(2, 3)))
