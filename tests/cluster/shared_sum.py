"""An estimator whose children share one number, for tests of phases: what was trained can be told from the number."""

import hashlib
import json
import os
import signal
import time
from pathlib import Path

from nas_cluster.core.errors import Diverged
from nas_cluster.core.evaluation import Evaluation
from nas_cluster.core.phases import PhaseResult, PhaseSchedule
from nas_cluster.estimators import Estimator


class SharedSum(Estimator):
    """The number grows by the sum of a phase's tokens; a child's metric is a hash of it and of the child's tokens."""

    uses_data = False
    phase_count: int = 4
    updates: int = 3
    dies_in: tuple[int, ...] = ()
    """Phases in which worker 1 is killed, once each."""
    disagrees_in: int = -1
    diverges_in: int = -1
    marks: str = ""

    def phases(self, data):
        return PhaseSchedule(self.phase_count, self.updates, minibatches=6, per_step=2)

    def open(self, context):
        return Holder(self)


class Holder:
    def __init__(self, settings):
        self._settings = settings
        self._phase, self._total = -1, 0

    def _load(self, state):
        if state is None:
            self._phase, self._total = -1, 0
        elif state.phase != self._phase:
            data = json.loads(Path(state.path).read_text())
            self._phase, self._total = data["phase"], data["total"]

    def train_phase(self, order):
        self._load(order.parent)
        if order.phase in self._settings.dies_in and self._is_first(order):
            if order.rank == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)  # as a collective would wait for the lost member
        if order.phase == self._settings.diverges_in:
            raise Diverged("the loss of the shared number is not finite")
        assert (order.rendezvous != "") == (order.world > 1)
        self._phase = order.phase
        self._total += sum(sum(tokens) for step in order.tokens for tokens in step)
        wrong = order.phase == self._settings.disagrees_in and order.rank == 1
        digest = hashlib.sha256(f"{self._total}{wrong}".encode()).hexdigest()
        sha256 = ""
        if order.rank == 0:
            text = json.dumps({"phase": self._phase, "total": self._total}).encode()
            Path(order.target).write_bytes(text)
            sha256 = hashlib.sha256(text).hexdigest()
        return PhaseResult(float(self._total), digest, 0.01, sha256)

    def _is_first(self, order):
        """Whether this is the group's first try at the phase."""
        mark = Path(self._settings.marks) / f"begun-{order.phase}-{order.rank}"
        first = not mark.exists()
        mark.touch()
        return first

    def evaluate(self, child):
        self._load(child.shared)
        data = f"{self._total}/{child.tokens}".encode()
        return Evaluation({"accuracy": int(hashlib.sha256(data).hexdigest()[:6], 16) / 16**6})
