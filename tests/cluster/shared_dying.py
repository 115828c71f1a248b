"""Estimators of shared tensors whose second worker is killed in the middle of a phase, once."""

import os
import signal
import threading
from pathlib import Path

from nas_cluster.estimators import Estimator
from nas_cluster.estimators.hypernetwork import Hypernetwork
from nas_cluster.estimators.shared_weights import SharedWeights


class Dying(Estimator):
    """Worker 1 is killed shortly after it has begun phase `dies_in`."""

    dies_in: int = -1
    mark: str = ""

    def open(self, context):
        shared = super().open(context)
        train_phase = shared.train_phase

        def train_or_die(order):
            mark = Path(self.mark)
            if order.phase == self.dies_in and order.rank == 1 and not mark.exists():
                mark.touch()
                threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGKILL)).start()
            return train_phase(order)

        shared.train_phase = train_or_die
        return shared


class SharedDying(Dying, SharedWeights):
    """As `shared_weights`."""


class HypernetworkDying(Dying, Hypernetwork):
    """As `hypernetwork`."""
