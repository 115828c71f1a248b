"""The Python API in a real notebook: its kernel runs an event loop, and its stop button is SIGINT."""

import asyncio
import json
import os
import sys
from functools import partial

import nbformat
import pytest
from nbclient import NotebookClient

from nas_cluster import load_run
from nas_cluster.storage.layout import JOURNAL

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SETUP = """
import time
from nas_cluster import JobConfig, load_run, resume, run, start
from nas_cluster.core.errors import RunStopped
from nas_cluster.retrain import retrain

data = {
    "name": "notebook",
    "mode": "synchronous",
    "dataset": "digits",
    "space": {"kind": "layerwise_cnn", "layers": 2, "filters": [4, 8]},
    "strategy": {"kind": "reinforce"},
    "estimator": {"kind": "train", "epochs": 1, "validation": 200, "crop_padding": 0, "flip": False},
    "topology": {"controller_replicas": 1, "children_per_replica": 2},
    "budget": {"max_children": 4},
    "storage_path": "runs",
}
config = JobConfig.from_dict(data)
"""


@pytest.fixture
def execute(tmp_path, monkeypatch):
    """Run cells in a kernel of this Python, in an empty folder; what each has printed."""
    kernel = tmp_path / "jupyter" / "kernels" / "this_python"
    kernel.mkdir(parents=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (kernel / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "this", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(entry for entry in sys.path if entry))

    def run(*cells, interrupted_when=None):
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        client = NotebookClient(notebook, kernel_name="this_python", resources={"metadata": {"path": str(tmp_path)}})
        presses = []
        if interrupted_when is not None:
            press = partial(press_stop, client, interrupted_when)
            client.on_notebook_start = lambda notebook: presses.append(asyncio.ensure_future(press()))
        client.execute()
        return ["".join(output.get("text", "") for output in cell.outputs) for cell in notebook.cells]

    return run


async def press_stop(client, condition):
    while not condition():
        await asyncio.sleep(0.1)
    await client.km.interrupt_kernel()


def test_a_notebook_runs_from_top_to_bottom(execute, tmp_path):
    _, searched, top, watched, resumed, retrained = execute(
        SETUP,
        "record = run(config, local=True, on_progress=lambda p: print('progress', p.children_done))\n"
        "print(record.state())",
        "for row in record.top(3): print(row.evaluation.metrics['accuracy'], row.child.architecture)",
        "handle = start(JobConfig.from_dict({**data, 'name': 'beside'}), local=True)\n"
        "while not handle.progress().children_done: time.sleep(0.1)\n"
        "print(handle.done, handle.record.state())\n"
        "print(handle.wait().counts()['done'], handle.progress().children_done)",
        "print(resume(record.directory, ['budget.max_children=6'], local=True).counts()['done'])",
        "(result,) = retrain(record.directory, top=1, seeds=1, overrides=['retrain.epochs=1'], local=True)\n"
        "print(result.ranked[0].tested)",
    )
    assert "progress 4" in searched
    assert searched.endswith("done\n")
    assert len(top.splitlines()) == 3
    assert watched.splitlines()[-1] == "4 4"
    assert resumed == "6\n"
    assert 0 < float(retrained.strip("(),\n")) <= 1
    assert load_run(tmp_path / "runs" / "notebook").state() == "done"


def test_the_stop_button_stops_a_run_which_then_continues_and_the_end_of_the_kernel_another(execute, tmp_path):
    directory = tmp_path / "runs" / "notebook"

    def has_begun():
        return (directory / JOURNAL).exists() and load_run(directory).counts()["done"] > 0

    _, stopped, continued, _ = execute(
        SETUP,
        "data |= {'estimator': {'kind': 'simulated', 'duration': {'seconds': 0.1}}, 'budget': {'max_children': 60}}\n"
        "try: run(JobConfig.from_dict(data), local=True)\n"
        "except RunStopped as error: print(error, '-', load_run('runs/notebook').state())",
        "print(resume('runs/notebook', local=True).counts()['done'])",
        "data |= {'name': 'left_alone', 'budget': {'max_children': 100_000}}\n"
        "handle = start(JobConfig.from_dict(data), local=True)\n"
        "while not handle.progress().children_done: time.sleep(0.1)\n",
        interrupted_when=has_begun,
    )
    assert stopped == "SIGINT received - interrupted\n"
    assert continued == "60\n"
    assert load_run(tmp_path / "runs" / "left_alone").state() == "stopped"
