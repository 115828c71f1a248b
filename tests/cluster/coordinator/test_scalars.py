"""What a run writes for TensorBoard, beside what `test_search_in_process.py` finds there."""

import subprocess
import sys

WITHOUT_TORCH = """
import sys
from pathlib import Path
from nas_cluster.cluster.coordinator.scalars import Scalars

scalars = Scalars(Path(sys.argv[1]))
scalars.add("children/reward", 0.5, 1)
scalars.close()
assert "torch" not in sys.modules
import torch
assert torch.ones(2).sum() == 2
"""


def test_the_coordinator_needs_no_torch_for_them(tmp_path):
    subprocess.run([sys.executable, "-c", WITHOUT_TORCH, str(tmp_path)], check=True)
    (events,) = tmp_path.iterdir()
    assert b"children/reward" in events.read_bytes()
