"""The process in which children are trained: warm for the whole search, and forked from a template that has imported
what it needs.

Reads one JSON line per order from a pipe and writes one JSON line per answer; the first order says which job. It ends
with its worker: when the order pipe closes, also in the middle of a child. The template forks one at a time, whenever
its worker sends the two ends of the pipes, and says its process id and then how it ended. It never computes: only a
process without other threads, and without a device, may be forked.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import queue
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

from nas_cluster.cluster.child_worker import Evaluators, evaluate_safely, train_phase_safely
from nas_cluster.config import JobConfig
from nas_cluster.core import progress
from nas_cluster.core.errors import UserError
from nas_cluster.core.evaluation import Child
from nas_cluster.core.phases import PhaseOrder

_PR_SET_PDEATHSIG = 1
_PROGRESS_SECONDS = 0.5
"""Progress is told at most so often."""


def _die_with_parent() -> None:
    """Have the kernel end this process with the one that started it, also while a child's native code holds the
    interpreter and the thread that reads the pipe cannot run. (The thread that started the template lives as long as
    the worker.)"""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _read_orders(descriptor: int, orders: queue.SimpleQueue[bytes]) -> None:
    with os.fdopen(descriptor, "rb") as pipe:
        for line in pipe:
            orders.put(line)
    os._exit(0)


def main(control_descriptor: int, imports: Sequence[str]) -> None:
    """The template: fork whenever two descriptors come, until the worker is gone."""
    _die_with_parent()
    for name in imports:
        with contextlib.suppress(ImportError):  # whoever needs it says so better
            importlib.import_module(name)
    control = socket.socket(fileno=control_descriptor)
    while True:
        request, descriptors, _, _ = socket.recv_fds(control, 1, 2)
        if not request:
            return
        pid = os.fork()
        if pid == 0:
            _be_child(control, *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        control.sendall(b"%d\n" % pid)
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        control.sendall(b"%d\n" % (ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status))
        if not control.recv(1):
            return
        os.waitpid(pid, 0)  # only now may its number be given to another process


def _be_child(control: socket.socket, order_descriptor: int, answer_descriptor: int) -> NoReturn:
    """After a fork: a session of its own, so that all it starts can be ended with it."""
    code = 1
    try:
        os.setsid()
        control.close()
        serve(order_descriptor, answer_descriptor)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def serve(order_descriptor: int, answer_descriptor: int) -> None:
    """Serve orders until the pipe closes."""
    _die_with_parent()
    orders: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read_orders, args=(order_descriptor, orders), daemon=True).start()
    answers = os.fdopen(answer_descriptor, "wb")
    said = 0.0

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

    progress.listen(get_on)
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
            answer(evaluate_safely(evaluators, Child.from_json(order)).to_json())


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
