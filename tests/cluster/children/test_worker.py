"""A worker always knows how a child ended, and is ready for the next one at once."""

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nas_cluster.cluster.children.worker import ChildWorker
from nas_cluster.core.errors import DataError
from nas_cluster.core.evaluation import Child, ChildId


def child(config, number):
    tokens = config.space.decode((0,) * len(config.space.decisions()))
    return Child(ChildId(0, 0, number), number, (0,) * len(config.space.decisions()), tokens.to_json(), "k", number)


FAULTS = {
    "exception": "exception",
    "diverged": "diverged",
    "bad_result": "bad_result",
    "memory": "out_of_memory",
    "sys_exit": "exit",
    "exit": "exit",
    "segfault": "segfault",
    "killed": "killed",
    "allocate": "out_of_memory",
}


@pytest.mark.parametrize(
    "faults,limits",
    [
        (FAULTS, {"memory_limit_gb": 0.4, "time_limit": 60.0}),
        ({"timeout": "timeout"}, {"time_limit": 0.5}),
        ({"timeout": "no_progress"}, {"stall_limit": 0.5}),
    ],
    ids=["crashes", "a hang", "no progress"],
)
def test_every_fault_has_its_cause_and_the_slot_goes_on(simulated_job, tmp_path, measured, faults, limits):
    config = simulated_job(estimator={"isolated": True, "faults": dict(enumerate(faults))}, failures=limits)

    async def main():
        worker = ChildWorker("worker-0", config.to_dict(), log=tmp_path / "worker.log")
        started = time.monotonic()
        await worker.start()
        start, seconds = time.monotonic() - started, []
        for number, cause in enumerate(faults.values()):
            started = time.monotonic()
            evaluation = (await worker.evaluate(child(config, number))).evaluation
            assert (evaluation.status, evaluation.cause) == ("failed", cause), evaluation
            healthy = (await worker.evaluate(child(config, 1000 + number))).evaluation
            assert healthy.status == "ok", healthy
            seconds.append(time.monotonic() - started)
        await worker.close()
        return start, max(seconds) - hang

    hang = 0.5 if "timeout" in faults else 0.0
    start, seconds = asyncio.run(main())
    assert seconds < max(5, 10 * start), "in proportion where the machine is so busy that a process starts slowly"
    measured(f"child: {', '.join(faults.values())}", f"right cause, the slot's next child done after {seconds:.1f} s")


def test_a_worker_that_is_closed_under_a_child_lets_go_of_it(simulated_job, tmp_path):
    """The child is waited for in a thread of its own, which must not be left waiting at a pipe that is gone."""
    config = simulated_job(estimator={"isolated": True, "faults": {0: "timeout"}})

    async def main():
        for _ in range(3):
            worker = ChildWorker("worker-0", config.to_dict(), log=tmp_path / "worker.log")
            await worker.start()
            hanging = asyncio.create_task(worker.evaluate(child(config, 0)))
            await asyncio.sleep(0.1)
            await worker.close()
            evaluation = (await asyncio.wait_for(hanging, 5)).evaluation
            assert (evaluation.status, evaluation.cause) == ("failed", "killed")

    asyncio.run(main())


CHATTY = """
import os, sys
from nas_cluster.core.evaluation import Evaluation
from nas_cluster.estimators import Estimator

class Chatty(Estimator):
    uses_data = False
    def open(self, context):
        return self
    def evaluate(self, child):
        print("x" * 3_000_000, flush=True)
        known = [name for name in os.environ if "TOKEN" in name]
        return Evaluation({"accuracy": 0.5}, details={"known": known})
"""


def test_what_children_print_is_bounded_and_they_do_not_know_the_token(simulated_job, tmp_path, monkeypatch):
    (tmp_path / "chatty.py").write_text(CHATTY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "hunter2")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/nowhere")
    config = simulated_job(estimator={"kind": "chatty:Chatty"}, failures={"log_limit_mb": 4})
    log = tmp_path / "worker.log"

    async def main():
        worker = ChildWorker("worker-0", config.to_dict(), log=log)
        await worker.start()
        for number in range(4):
            evaluation = (await worker.evaluate(child(config, number))).evaluation
            assert evaluation.details == {"known": []}
            assert log.stat().st_size < 4.1e6
        await worker.close()

    asyncio.run(main())
    assert log.read_text().count("more than failures.log_limit_mb") == 1


def test_a_dataset_that_cannot_be_read_is_the_users_error(simulated_job, tmp_path):
    config = simulated_job(estimator={"kind": "train"}, dataset={"kind": "npz", "path": str(tmp_path / "no.npz")})

    async def main():
        worker = ChildWorker("worker-0", config.to_dict(), log=tmp_path / "worker.log")
        with pytest.raises(DataError, match=r"no\.npz"):
            await worker.start()
        await worker.close()

    asyncio.run(main())


def test_what_a_child_prints_goes_to_its_log(simulated_job, tmp_path, monkeypatch):
    (tmp_path / "talkative.py").write_text(
        "from nas_cluster.estimators import Estimator\n"
        "from nas_cluster.core.evaluation import Evaluation\n"
        "class Talkative(Estimator):\n"
        "    def open(self, context):\n        return self\n"
        "    def evaluate(self, child):\n        print('hello from a child', flush=True)\n"
        "        return Evaluation({'accuracy': 0.5})\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = simulated_job(estimator="talkative:Talkative")

    async def main():
        worker = ChildWorker("worker-0", config.to_dict(), log=tmp_path / "worker.log")
        await worker.start()
        assert (await worker.evaluate(child(config, 0))).evaluation.metrics["accuracy"] == 0.5
        await worker.close()

    asyncio.run(main())
    assert "hello from a child" in (tmp_path / "worker.log").read_text()


REAL = {
    "space": {"filters": [4, 8], "layers": 2},
    "estimator": {"kind": "train", "epochs": 3, "validation": 200, "crop_padding": 0, "flip": False},
}


@pytest.mark.parametrize("limit,cause", [(None, "out_of_memory"), (10_000_000, "too_large")])
def test_a_model_of_100_gb_has_its_cause_and_the_slot_goes_on(
    simulated_job, tmp_path, monkeypatch, measured, limit, cause
):
    (tmp_path / "huge_space.py").write_text(
        "from nas_cluster.spaces.layerwise_cnn.space import LayerwiseCNN\n"
        "class Huge(LayerwiseCNN):\n"
        "    def build_child(self, architecture, task):\n"
        "        from torch import nn\n"
        "        return nn.Sequential(nn.Flatten(), nn.Linear(64, 400_000_000), nn.Linear(400_000_000, 10))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = simulated_job(
        **{**REAL, "space": {"kind": "huge_space:Huge", "layers": 2}}, failures={"max_parameters": limit}
    )

    async def main():
        worker = ChildWorker("worker-0", config.to_dict(), log=tmp_path / "worker.log")
        await worker.start()
        for number in range(2):
            evaluation = (await worker.evaluate(child(config, number))).evaluation
            assert (evaluation.status, evaluation.cause) == ("failed", cause), evaluation
        await worker.close()

    asyncio.run(main())
    measured("child: 100 GB model", f"{cause} with max_parameters={limit}, the slot's next child answered")


STUCK = """
import asyncio, json, sys
from pathlib import Path
from nas_cluster.cluster.children.worker import ChildWorker
from nas_cluster.core.evaluation import Child

async def main():
    worker = ChildWorker("worker-0", json.loads(sys.argv[1]), log=Path(sys.argv[2]))
    await worker.start()
    print(worker._process._process.pid, flush=True)
    await worker.evaluate(Child.from_json(json.loads(sys.argv[3])))

asyncio.run(main())
"""


def test_a_child_that_holds_the_interpreter_ends_with_its_killed_worker(simulated_job, tmp_path, monkeypatch, measured):
    (tmp_path / "stuck_estimator.py").write_text(
        "import ctypes\nfrom nas_cluster.estimators import Estimator\n"
        "class Stuck(Estimator):\n"
        "    def open(self, context):\n        return self\n"
        "    def evaluate(self, child):\n"
        f"        open({str(tmp_path / 'begun')!r}, 'w').close()\n"
        "        ctypes.PyDLL(None).sleep(60)\n"  # native code that does not let the interpreter go
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = simulated_job(estimator="stuck_estimator:Stuck")
    arguments = [json.dumps(config.to_dict()), str(tmp_path / "log"), json.dumps(child(config, 0).to_json())]
    worker = subprocess.Popen(
        [sys.executable, "-c", STUCK, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    pid = int(worker.stdout.readline())
    deadline = time.monotonic() + 60
    while not (tmp_path / "begun").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    worker.kill()
    worker.wait()
    killed = time.monotonic()
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]:
        assert time.monotonic() - killed < 10, "an orphan holds its slot"
        time.sleep(0.05)
    measured("worker of a child that holds the interpreter killed", f"it ended after {time.monotonic() - killed:.1f} s")
