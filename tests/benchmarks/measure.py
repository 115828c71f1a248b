"""How every benchmark here reports: the median and the spread of repeated measurements."""

import os
import platform
import statistics
from pathlib import Path


def summary(values):
    """`12.3 (11.9 to 12.8)`."""
    return f"{statistics.median(values):,.1f} ({min(values):,.1f} to {max(values):,.1f}, n={len(values)})"


def machine():
    """One line about where this ran."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    return f"{os.cpu_count()} cores, {model}, python {platform.python_version()}"
