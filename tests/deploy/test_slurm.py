"""The batch script, run with stand-ins for Slurm's, Ray's and our commands that write down how they were called."""

import os
import re
import signal
import stat
import subprocess
import time

import pytest
from deploy_files import DEPLOY, HEALTH, check_command

SCRIPT = DEPLOY / "slurm" / "search.sbatch"

STANDINS = {
    "scontrol": 'if [ "$1" = show ]; then printf "n1\\nn2\\nn3\\n"; fi',
    "srun": 'for w in "$@"; do case $w in --*) shift;; *) break;; esac; done; exec "$@"',
    "hostname": "echo 127.0.0.1",
    # Steps run in the background: like the real ones, these are ready once the head, once all nodes have started.
    "ray": 'if [ "$1" = start ]; then exec sleep 60; fi; until grep -q "^ray start --head" calls; do sleep 0.05; done',
    "nas-cluster": "until [ $(grep -c '^ray start' calls) = 3 ]; do sleep 0.05; done; trap 'exit 75' TERM; "
    "stat -c %a .nas-cluster-7.token > mode; touch started; "
    'if [ -n "${HANG:-}" ]; then while :; do sleep 0.1; done; fi; exit ${CODE:-0}',
}


@pytest.fixture
def slurm(tmp_path):
    """Start the script in a folder of its own; calls of the stand-ins, one a line."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, body in STANDINS.items():
        path = commands / name
        path.write_text(f'#!/bin/bash\necho "{name} $*" >> {tmp_path}/calls\n{body}\n')
        path.chmod(0o755)

    def start(*arguments, **environment):
        (tmp_path / "calls").unlink(missing_ok=True)
        slurm = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-3]", "SLURM_TMPDIR": str(tmp_path)}
        return subprocess.Popen(
            ["bash", str(SCRIPT), *arguments],
            cwd=tmp_path,
            env={"PATH": f"{commands}:{os.environ['PATH']}", **slurm, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    yield start


def calls(tmp_path):
    return (tmp_path / "calls").read_text().splitlines()


def test_ray_on_every_node_and_the_job_on_the_first(slurm, tmp_path):
    process = slurm("job.yaml", "budget.max_children=5")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    made = calls(tmp_path)
    starts = [call for call in made if call.startswith("srun") and " ray start " in call]
    assert sorted(re.search(r"--nodelist=(\w+)", call)[1] for call in starts) == ["n1", "n2", "n3"]
    assert "--head" in starts[0]
    assert all("--address=127.0.0.1:6379" in call for call in starts[1:])
    (run,) = [call for call in made if call.startswith("nas-cluster")]
    assert run == f"nas-cluster run job.yaml storage_path=file://{tmp_path}/runs budget.max_children=5"
    assert not any("requeue" in call for call in made)
    assert (tmp_path / "mode").read_text().strip() == "600", "only the user can read the token"
    assert not list(tmp_path.glob(".nas-cluster-*")), "and it is gone afterwards"


@pytest.mark.parametrize("code,requeued", [(75, True), (2, False), (1, False), (130, False)])
def test_only_a_resumable_stop_is_requeued(slurm, tmp_path, code, requeued):
    process = slurm("job.yaml", CODE=str(code))
    process.communicate(timeout=60)
    assert process.returncode == code
    assert ("scontrol requeue 7" in calls(tmp_path)) is requeued


def test_a_run_that_never_gets_further_is_not_requeued_for_ever(slurm, tmp_path):
    slurm("job.yaml", CODE="75", SLURM_RESTART_COUNT="50").communicate(timeout=60)
    assert not any("requeue" in call for call in calls(tmp_path))


def test_the_signal_before_the_time_limit_reaches_the_driver(slurm, tmp_path):
    process = slurm("job.yaml", HANG="1")
    deadline = time.monotonic() + 60
    while not (tmp_path / "started").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)  # --signal=B:TERM sends it to the batch shell alone
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 75, output
    assert "scontrol requeue 7" in calls(tmp_path)


def test_the_script_can_be_submitted_and_names_what_exists():
    text = SCRIPT.read_text()
    assert SCRIPT.stat().st_mode & stat.S_IXUSR
    directives = dict(re.findall(r"^#SBATCH --([a-z-]+)=?(\S*)$", text, re.MULTILINE))
    assert "requeue" in directives
    assert directives["signal"].startswith("B:TERM@")
    assert int(directives["nodes"]) > 1
    for name, value in HEALTH.items():
        assert f"{name}={value}" in text
    assert "RAY_AUTH_MODE=token" in text
    check_command("nas-cluster run job.yaml storage_path=file:///shared/runs")
    scripts = pytest.importorskip("ray.scripts.scripts")
    known = {option for parameter in scripts.start.params for option in parameter.opts}
    for start in re.findall(r"ray start ((?:.*\\\n)*.*)", text):
        assert set(re.findall(r"(?<!\S)--[a-z-]+", start)) <= known | {"--nodes", "--ntasks"}


def test_without_a_config_it_says_how_it_is_used(slurm):
    process = slurm()
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 2
    assert "usage: sbatch" in output
