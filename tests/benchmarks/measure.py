"""How every benchmark here reports: the median and the spread of repeated measurements."""

import os
import platform
import statistics
import time
from pathlib import Path


def summary(values):
    """`12.3 (11.9 to 12.8)`."""
    return f"{statistics.median(values):,.1f} ({min(values):,.1f} to {max(values):,.1f}, n={len(values)})"


def machine(device="cpu"):
    """One line about where this ran."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    card = ""
    if device == "cuda":
        import torch

        card = f"{torch.cuda.get_device_name()}, torch {torch.__version__}, "
    return f"{card}{os.cpu_count()} cores, {model}, python {platform.python_version()}"


def clock(device="cpu"):
    """Seconds, once the device has done what it was told."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()
    return time.perf_counter()


def trainer_step(model, loss, device, *, clip=None, rate=0.01, momentum=0.0):
    """A function of one batch that trains `model` as the trainers do: on CUDA, one captured graph after a few steps.

    loss(inputs): of the model, from one tensor.
    """
    import torch

    from nas_cluster.training.step import TrainingStep

    class Step(TrainingStep):
        def loss(self, inputs):
            return loss(inputs)

    def optimizer(lr):
        return torch.optim.SGD(model.parameters(), lr, momentum, fused=True)

    training = Step(model, optimizer, torch.device(device), clip)

    def step(inputs):
        training.step(inputs, rate)
        return training.path

    return step
