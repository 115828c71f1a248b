"""Runs beside their caller on Ray: in threads that did not start it, several at once, and one nobody ends."""

import os
import subprocess
import sys

import pytest
from searches import trace
from waiting import wait_for

from nas_cluster import job, start
from nas_cluster.config.loading import write_yaml

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

SLOW = {"estimator": {"duration": {"seconds": 0.3}}}


def test_a_run_on_ray_is_looked_at_stopped_and_continued(ray_address, simulated_job):
    config = simulated_job(**SLOW)
    handle = start(config)
    wait_for(lambda: handle.progress().children_done > 5, "child done", 60)
    handle.stop()
    assert handle.record.state() == "stopped"
    assert handle.progress().children_done < 60
    continued = start(config).wait(120)
    whole = simulated_job(name="whole", **SLOW)
    job.execute(whole, local=True)
    assert trace(continued) == trace(job.load_run(f"{whole.storage_path}/whole"))


LEFT_ALONE = """
import sys, time
from nas_cluster import JobConfig, start

short, long = (start(JobConfig.load(path)) for path in sys.argv[1:])
assert short.wait().counts()["done"] == 60
import ray
assert ray.is_initialized(), "the other run needs it"
before = long.progress().children_done
while long.progress().children_done < before + 20:
    time.sleep(0.1)
print(ray._private.worker._global_node.get_session_dir_path())
"""


def test_runs_of_one_process_share_its_ray_and_end_with_it(simulated_job, tmp_path):
    budgets = {"short": 60, "long": 100_000}
    paths = []
    for name, children in budgets.items():
        config = simulated_job(name=name, **{**SLOW, "budget": {"max_children": children}})
        paths.append(tmp_path / f"{name}.yaml")
        paths[-1].write_text(write_yaml(config.to_dict()))
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    ended = subprocess.run(
        [sys.executable, "-c", LEFT_ALONE, *map(str, paths)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        start_new_session=True,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.strip().endswith(f"{tmp_path / 'long'}: the interpreter ends")
    assert job.load_run(tmp_path / "long").state() == "stopped"
    session = ended.stdout.split()[-1]
    processes = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert session not in processes, "Ray has ended too"
