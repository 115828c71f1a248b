"""The process in which children are trained: started once, warm for the whole search.

Reads one JSON line per order from a pipe and writes one JSON line per answer; the first order says which job. It ends
with its worker: when the order pipe closes, also in the middle of a child.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from typing import Any

from nas_cluster.cluster.child_worker import Evaluators, evaluate_safely
from nas_cluster.config import JobConfig
from nas_cluster.core.errors import UserError
from nas_cluster.core.evaluation import Child


def _read_orders(descriptor: int, orders: queue.SimpleQueue[bytes]) -> None:
    with os.fdopen(descriptor, "rb") as pipe:
        for line in pipe:
            orders.put(line)
    os._exit(0)


def main(order_descriptor: int, answer_descriptor: int) -> None:
    """Serve orders until the pipe closes."""
    orders: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read_orders, args=(order_descriptor, orders), daemon=True).start()
    answers = os.fdopen(answer_descriptor, "wb")

    def answer(data: dict[str, Any]) -> None:
        answers.write(json.dumps(data).encode() + b"\n")
        answers.flush()

    setup = json.loads(orders.get())
    try:
        config = JobConfig.from_dict(setup["config"])
        evaluators = Evaluators(config, device=setup["device"], test=setup["test"])
    except Exception as error:
        answer({"error": str(error) or type(error).__name__, "user": isinstance(error, UserError)})
        raise
    answer({})
    while True:
        child = Child.from_json(json.loads(orders.get()))
        answer(evaluate_safely(evaluators, child).to_json())


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
