"""The process in which children are trained: started once, warm for the whole search.

Reads one JSON line per order from a pipe and writes one JSON line per answer; the first order says which job. Before an
answer there may be empty lines, which say that the child gets on, and lines `{"report": ...}`. It ends with its worker:
when the order pipe closes, also in the middle of a child.
"""

from __future__ import annotations

import ctypes
import json
import os
import queue
import signal
import sys
import threading
import time
from typing import Any

from nas_cluster.cluster.children.evaluators import Evaluators, evaluate_safely, train_phase_safely
from nas_cluster.cluster.children.reports import Thinned
from nas_cluster.config import JobConfig
from nas_cluster.core import reporting
from nas_cluster.core.errors import UserError
from nas_cluster.core.evaluation import Child, Report
from nas_cluster.core.phases import PhaseOrder

_PR_SET_PDEATHSIG = 1
_PROGRESS_SECONDS = 0.5
"""Progress is told at most so often."""


def _die_with_parent() -> None:
    """Have the kernel end this process with its worker, also while a child's native code holds the interpreter and the
    thread that reads the pipe cannot run. (The thread that started this process lives as long as the worker.)"""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _read_orders(descriptor: int, orders: queue.SimpleQueue[bytes]) -> None:
    with os.fdopen(descriptor, "rb") as pipe:
        for line in pipe:
            orders.put(line)
    os._exit(0)


def main(order_descriptor: int, answer_descriptor: int) -> None:
    """Serve orders until the pipe closes."""
    _die_with_parent()
    orders: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read_orders, args=(order_descriptor, orders), daemon=True).start()
    answers = os.fdopen(answer_descriptor, "wb")
    said = 0.0
    reports: Thinned | None = None

    def answer(data: dict[str, Any]) -> None:
        answers.write(json.dumps(data).encode() + b"\n")
        answers.flush()

    def get_on() -> None:
        """An empty line: not an answer, but a sign of progress."""
        nonlocal said
        now = time.monotonic()
        if now - said >= _PROGRESS_SECONDS:
            said = now
            answers.write(b"\n")
            answers.flush()
        if reports is not None:
            reports.look()

    def report(one: Report) -> None:
        if reports is not None:
            reports.add(one)

    reporting.listen(get_on, report)
    setup = json.loads(orders.get())
    try:
        config = JobConfig.from_dict(setup["config"])
        evaluators = Evaluators(config, device=setup["device"], test=setup["test"])
    except Exception as error:
        answer({"error": str(error) or type(error).__name__, "user": isinstance(error, UserError)})
        raise
    answer({})
    while True:
        order = json.loads(orders.get())
        if "phase" in order:
            answer(train_phase_safely(evaluators, PhaseOrder.from_json(order["phase"])))
        else:
            reports = Thinned(lambda one: answer({"report": one.to_json()}))
            evaluation = evaluate_safely(evaluators, Child.from_json(order))
            reports.flush()
            reports = None
            answer(evaluation.to_json())


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
