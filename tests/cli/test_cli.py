"""The command line as a user types it: what it prints, its exit codes, one line for every mistake."""

import fcntl
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from io import StringIO

import pytest

from nas_cluster import job
from nas_cluster.cli import main
from nas_cluster.cli.curves import sparkline
from nas_cluster.cli.progress import ProgressView, duration, line
from nas_cluster.cluster.messages import Progress
from nas_cluster.config.loading import write_yaml
from nas_cluster.core.errors import RunError
from nas_cluster.storage.layout import JOURNAL, REPORT


@pytest.fixture
def cli(capsys):
    def call(*arguments):
        code = 0
        try:
            main([str(a) for a in arguments])
        except SystemExit as end:
            code = end.code or 0
        out = capsys.readouterr()
        return code, out.out, out.err

    return call


@pytest.fixture
def config_file(simulated_job, tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(write_yaml(simulated_job().to_dict()))
    return path


@pytest.fixture
def run_dir(simulated_job, tmp_path):
    job.execute(simulated_job(), local=True)
    return tmp_path / "job"


def test_run_status_top_report_resume(cli, config_file, tmp_path):
    code, out, _ = cli("run", config_file, "--local", "budget.max_children=30")
    assert code == 0
    assert "30/30 children done" in out
    assert "\x1b" not in out, "no control codes outside a terminal"
    run = tmp_path / "job"
    code, out, _ = cli("status", run)
    assert code == 0
    assert "30 of 30 done" in out
    code, out, _ = cli("status", run, "--json")
    assert json.loads(out)["children"]["done"] == 30
    code, out, _ = cli("top", run, "-k", 3)
    assert len(out.splitlines()) == 4
    code, out, _ = cli("top", run, "-k", 3, "--json")
    rewards = [row["reward"] for row in json.loads(out)]
    assert rewards == sorted(rewards, reverse=True)
    code, out, _ = cli("resume", run, "--local", "budget.max_children=36")
    assert code == 0
    assert "36/36" in out
    code, out, _ = cli("report", run)
    assert code == 0
    assert (run / REPORT).stat().st_size > 10_000


def test_top_and_status_speak_of_metrics_by_name_and_show_curves(cli, simulated_job, tmp_path):
    config = simulated_job(estimator={"reports": 9}, objectives={"accuracy": "max"})
    job.execute(config, local=True)
    run = tmp_path / "job"
    code, out, _ = cli("top", run, "-k", 2)
    assert code == 0
    assert out.split()[:5] == ["rank", "accuracy", "reward", "parameters", "seconds"]
    code, out, _ = cli("top", run, "-k", 2, "--curves")
    assert code == 0
    head, first, second = out.splitlines()[3:]
    assert re.fullmatch(r"accuracy, from 0\.\d+ \(▁\) to 0\.\d+ \(█\)", head)
    assert re.match(r" +1  r\d+-u\d+-i\d+ +[▁▂▃▄▅▆▇]{4,}█+ +0\.\d+ → 0\.\d+, 9 steps$", first)
    assert second.split()[0] == "2"
    _, out, _ = cli("top", run, "-k", 1, "--json", "--curves")
    (row,) = json.loads(out)
    assert row["objective"] == "accuracy"
    assert row["metrics"].keys() == {"accuracy", "seconds"}
    assert [report["step"] for report in row["reports"]] == list(range(1, 10))
    assert row["reports"][-1]["metrics"]["accuracy"] == row["metrics"]["accuracy"] == row["reward"]
    _, out, _ = cli("status", run, "--json")
    assert json.loads(out)["best"]["metrics"] == row["metrics"]
    _, out, _ = cli("status", run)
    assert re.search(r"reward 0\.\d{4}, accuracy 0\.\d{4}, child", out)


def test_a_run_whose_children_report_nothing_says_so(cli, run_dir):
    code, out, _ = cli("top", run_dir, "-k", 2, "--curves")
    assert code == 0
    assert out.splitlines()[-1] == "no child has reported anything while it trained"


def test_curves_are_bars_on_one_scale():
    assert sparkline([0, 0.5, 1], 0, 1) == "▁▅█"
    assert sparkline([1.0], 1.0, 1.0) == "▁"
    long = sparkline(range(1001), 0, 1000)
    assert (len(long), long[0], long[-1]) == (40, "▁", "█")


def test_plan_starts_nothing(cli, config_file, tmp_path):
    code, out, _ = cli("plan", config_file)
    assert code == 0
    assert "children at once             6" in out
    assert not (tmp_path / "job").exists()
    code, out, _ = cli("plan", config_file, "--json", "estimator=train", "space.layers=2")
    plan = json.loads(out)
    assert plan["controller"]["parameters"] > 1000
    assert plan["first_children"][0]["parameters"] > 0
    assert plan["controller"]["updates"] == 10  # rounds of 2 replicas with 3 children each
    assert plan["cost"]["operations_in_all"] == pytest.approx(60 * plan["cost"]["operations_per_child"])


def test_a_job_without_a_dataset_is_planned_searched_reported_and_retrained(cli, config_file, tmp_path):
    code, out, _ = cli("plan", config_file, "dataset=none")
    assert code == 0
    assert "dataset" not in out
    assert "· - parameters" in out
    stages = "finalize=[{name: again, seeds: 2, estimator: {kind: simulated, target_seed: 5}}]"
    assert cli("run", config_file, "--local", "dataset=none", "budget.max_children=6", stages)[0] == 0
    assert cli("resume", tmp_path / "job", "--local", "budget.max_children=12")[0] == 0
    code, _, err = cli("retrain", tmp_path / "job", "--local", "retrain={kind: train, epochs: 1}")
    assert (code, err) == (2, "nas-cluster: job: dataset: retrain 'train' needs one\n")
    assert cli("retrain", tmp_path / "job", "--local")[0] == 0
    assert cli("report", tmp_path / "job")[0] == 0
    page = (tmp_path / "job" / REPORT).read_text()
    assert "children scored by simulated; 2 parameter-server shards" in page


def test_show_counts_and_draws_any_architecture(cli, run_dir, tmp_path):
    picture = tmp_path / "nas_v1.svg"
    code, out, _ = cli("show", "layerwise_cnn:nas_v1", "-o", picture)
    assert code == 0
    assert "4,2" in next(line for line in out.splitlines() if line.startswith("parameters"))
    assert picture.read_text().count('class="node ') == 17
    code, out, _ = cli("show", f"{run_dir}:1", "--json", "--task", "28x28x1/10")
    best = json.loads(out)
    assert best["task"] == "28x28x1 images, 10 classes"
    (tmp_path / "mine.json").write_text(json.dumps(best["architecture"]))
    code, out, _ = cli("show", f"layerwise_cnn:{tmp_path / 'mine.json'}", "child.extra_filters=9", "--json")
    assert json.loads(out)["key"] == best["key"]
    assert json.loads(out)["parameters"] > best["parameters"]
    (tmp_path / "own.json").write_text('{"width": 4}')
    code, out, _ = cli("show", f"tabular:TableSpace:{tmp_path / 'own.json'}")
    assert code == 0, "a space for a task of somebody's own, of which no usual one is known"
    assert re.search(r"^parameters +-$", out, re.M)


def test_a_config_that_says_nothing_of_retraining_trains_an_architecture_with_changes(
    cli, run_dir, simulated_job, tmp_path
):
    data = simulated_job(name="alone").to_dict()
    data.pop("retrain", None)
    (tmp_path / "alone.yaml").write_text(write_yaml(data))
    code, out, err = cli(
        *("retrain", tmp_path / "alone.yaml", "--local", "-a", f"{run_dir}:1", "--seeds", 2, "retrain.noise=0.1")
    )
    assert code == 0, err
    rows = job.load_run(tmp_path / "alone").trainings()
    assert [row.settings["estimator"]["noise"] for row in rows] == [0.1, 0.1]
    assert len({row.metric for row in rows}) == 2, out


def test_schema(cli):
    code, out, _ = cli("schema")
    assert code == 0
    assert json.loads(out)["title"] == "nas_cluster job"


def test_a_stopped_run_says_how_to_go_on(cli, config_file):
    code, _, err = cli("run", config_file, "--local", "estimator.fault_rate=1.0", "failures.max_in_a_row=4")
    assert code == 75
    assert "4 children failed in a row" in err
    assert "continue: nas-cluster resume" in err


def test_a_run_here_is_listed_looked_at_and_stopped_from_elsewhere(cli, simulated_job, tmp_path):
    slow = simulated_job(name="slow", estimator={"isolated": True, "duration": {"seconds": 0.3}})
    (tmp_path / "slow.yaml").write_text(write_yaml(slow.to_dict()))
    command = [sys.executable, "-m", "nas_cluster.cli", "run", str(tmp_path / "slow.yaml"), "--local"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    run = tmp_path / "slow"
    while not (run / JOURNAL).exists() or job.load_run(run).counts()["done"] < 3:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    (run / "logs" / "worker-0.log").write_text("hello\n")
    _, out, _ = cli("list", tmp_path)
    assert re.search(r" running +\S+/slow$", out, re.M), out
    _, out, _ = cli("status", run)
    assert re.search(r"^state +running$", out, re.M), out
    assert cli("logs", run)[1] == "worker-0 | hello\n"
    code, out, _ = cli("stop", run)
    assert code == 0
    assert "stopped · continue: nas-cluster resume" in out
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 75
    assert "stopped: nas-cluster stop" in output
    assert not (run / "stop").exists()
    _, out, _ = cli("list", tmp_path, "--json")
    assert [(one["name"], one["state"]) for one in json.loads(out)] == [("slow", "stopped")]


@pytest.mark.skipif(sys.platform != "linux", reason="a pipe of a known size")
@pytest.mark.parametrize("told,ended,code", [(None, "done", 0), (signal.SIGTERM, "stopped", 75)])
def test_a_search_does_not_wait_for_who_reads_its_output(simulated_job, tmp_path, measured, told, ended, code):
    """The pipe is full from the start; then its reader goes away. The exit code is right all the same."""
    budget = {"max_children": 60 if told is None else 100_000}
    (tmp_path / "job.yaml").write_text(write_yaml(simulated_job(budget=budget).to_dict()))
    read, write = os.pipe()
    os.set_blocking(write, False)
    os.write(write, b"." * fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096))
    os.set_blocking(write, True)
    command = [sys.executable, "-m", "nas_cluster.cli", "run", str(tmp_path / "job.yaml"), "--local"]
    process = subprocess.Popen(command, stdout=write, stderr=write)
    os.close(write)
    run = tmp_path / "job"
    while not (run / JOURNAL).exists() or job.load_run(run).counts()["done"] < 60:
        assert process.poll() is None
        time.sleep(0.05)
    if told is not None:
        process.send_signal(told)
    while job.load_run(run).state() != ended:
        assert process.poll() is None
        time.sleep(0.05)
    assert process.poll() is None, "it still has something to say"
    os.close(read)
    assert process.wait(30) == code
    measured("nobody reads the output, the reader goes away", f"{ended}, exit code {code}")


def test_a_search_in_which_every_child_failed_says_why(cli, config_file, tmp_path):
    code, _, err = cli("run", config_file, "--local", "objectives={nope: max}", "budget.max_children=8")
    assert code == 0
    why = "bad_result: no metric 'nope', which counts; it has accuracy, seconds"
    assert f"warning: all 8 children failed; the last: {why}\n" in err
    assert cli("top", tmp_path / "job")[1] == f"all 8 children failed ({why})\n"
    assert f"failures    bad_result 8 ({why.removeprefix('bad_result: ')})\n" in cli("status", tmp_path / "job")[1]


MISTAKES = {
    "stop what does not run": (["stop", "RUN"], "is not running on this machine (done)"),
    "stop what is not there": (["stop", "RUNX"], "no such run"),
    "list what is not there": (["list", "no_such_folder"], "no such folder"),
    "logs of nothing": (["logs", "."], "not a run directory"),
    "submit a config that is not there": (
        ["submit", "quikstart.yaml", "--address", "http://127.0.0.1:1"],
        "no such file",
    ),
    "no such command": (["rnu"], "did you mean 'run'"),
    "no such option": (["top", "RUN", "--jsn"], "--json"),
    "no such file": (["run", "quikstart.yaml"], "no such file"),
    "a wrong override": (["run", "CONFIG", "budget.max_children=many"], "budget.max_children"),
    "no dataset where one is needed": (
        ["run", "CONFIG", "dataset=none", "estimator=train"],
        "dataset: estimator 'train' needs one",
    ),
    "a reward that is relative": (["run", "CONFIG", "reward=.mod:f"], "reward '.mod:f': '.mod' is no name of a module"),
    "a failed child that wins": (
        ["run", "CONFIG", "objectives={loss: min}"],
        "failures.reward: rewards of a minimised",
    ),
    "an unknown key": (["run", "CONFIG", "topology.replicas=3"], "topology.replicas: unknown key"),
    "no such run": (["status", "RUNX"], "no such run; did you mean 'job'"),
    "not a run": (["top", "."], "not a run directory"),
    "another search": (["run", "CONFIG", "--local", "seed=9"], "seed: the run has 1, the config says 9"),
    "resume as another search": (["resume", "RUN", "--local", "space.layers=5"], "space.layers: the run has 3"),
    "resume with a wrong key": (["resume", "RUN", "--local", "budget.max=5"], "budget.max: unknown key"),
    "a count below one": (["top", "RUN", "-k", "0"], "0 is not in the range"),
    "a dataset that is not there": (
        ["run", "CONFIG", "--local", "name=new", "estimator=train", "dataset={kind: npz, path: no.npz}"],
        "no file",
    ),
    "a damaged journal": (["status", "DAMAGED"], "damaged or not a journal"),
    "a folder with other things": (["run", "CONFIG", "--local", "name=busy"], "is not empty and holds no run"),
    "retrain without children": (["retrain", "EMPTY", "--local"], "no child has been scored yet"),
    "a config has no winners": (["retrain", "CONFIG", "--local"], "a config needs --architecture"),
    "no such published architecture": (
        ["retrain", "RUN", "--local", "-a", "layerwise_cnn:nas_v2"],
        "did you mean 'nas_v1'",
    ),
    "an architecture of another space": (
        ["retrain", "RUN", "--local", "-a", "layerwise:nas_v1"],
        "did you mean 'layer",
    ),
    "no such rank": (["retrain", "RUN", "--local", "-a", "RUN:99999"], "no architecture '99999'"),
    "a scale that the space does not have": (
        ["retrain", "RUN", "--local", "scale.filters=3"],
        "scale.filters: unknown",
    ),
    "a grid of an unknown setting": (["retrain", "RUN", "--local", "--grid", "nois=[0, 1]"], "nois: unknown key"),
    "a grid without values": (["retrain", "RUN", "--local", "--grid", "noise=[]"], "noise"),
    "a stage of a wrong size": (["run", "CONFIG", "--local", "finalize=[{name: a, top: 0}]"], "finalize.0.top"),
    "two stages of one name": (["run", "CONFIG", "--local", "finalize=[{name: a}, {name: a}]"], "is called 'a' too"),
    "a stage with a wrong scale": (
        ["run", "CONFIG", "--local", "finalize=[{name: a, scale: {filters: 3}}]"],
        "finalize.0.scale.filters: unknown",
    ),
    "an architecture of no form": (["show", "nas_v1"], "write space:name"),
    "a task of no form": (["show", "layerwise_cnn:nas_v1", "--task", "32"], "write HEIGHTxWIDTHxCHANNELS/CLASSES"),
    "a task that has no form": (
        ["show", "tabular:TableSpace:own.json", "--task", "3"],
        "is for tables, and such a task",
    ),
    "an architecture file that is not there": (["show", "layerwise_cnn:no.json"], "no.json: is not a readable JSON"),
    "a file with another architecture": (["show", "layerwise_cnn:wrong.json"], "wrong.json.layers: missing"),
    "retrain with a wrong key": (["retrain", "RUN", "--local", "retrain.epoch=3"], "retrain.epoch: unknown key"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_every_mistake_is_one_line_and_exit_code_2(
    cli, case, run_dir, config_file, tmp_path, simulated_job, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong.json").write_text('{"layer": []}')
    (tmp_path / "own.json").write_text('{"width": 4}')
    (tmp_path / "busy").mkdir()
    (tmp_path / "busy" / "notes.txt").write_text("mine")
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / JOURNAL).write_bytes(b"nonsense" * 500)
    job.prepare(simulated_job(name="empty"))
    places = {"RUN": run_dir, "RUNX": tmp_path / "jobb", "CONFIG": config_file, "DAMAGED": damaged}
    places["EMPTY"] = tmp_path / "empty"
    arguments, message = MISTAKES[case]
    code, out, err = cli(*(str(places.get(a, a)).replace("RUN:", f"{run_dir}:") for a in arguments))
    assert code == 2
    assert message in err
    assert "Traceback" not in out + err
    lines = [text for text in err.splitlines() if text]
    assert all(text.startswith("nas-cluster: ") for text in lines)
    assert len(lines) <= 2  # a refused config also says what may change


def test_looking_at_a_run_does_not_need_its_space(cli, run_dir, monkeypatch):
    from nas_cluster.storage.journal import Journal

    with Journal.open(run_dir) as journal:
        config = journal.config
        config["space"]["kind"] = "gone:Space"
        journal.set_config(config, "test")
    assert cli("top", run_dir, "-k", 2)[0] == 0
    assert cli("report", run_dir)[0] == 0
    assert "cannot import gone" in (run_dir / REPORT).read_text()


def test_durations_and_lines():
    assert [duration(s) for s in (5, 75, 3600, 86_461)] == ["5s", "1m 15s", "1h 00m", "24h 01m"]
    text = line(Progress(children_done=3, max_children=10, best_reward=0.5, seconds_left=70))
    assert "3/10 children done" in text
    assert "1m 10s left" in text


def test_in_a_terminal_a_panel_fits_80_columns():
    from rich.console import Console

    console = Console(force_terminal=True, width=80, record=True, file=StringIO())
    with ProgressView("demo", console) as view:
        view.update(Progress(children_done=30, max_children=60, children_running=2, entropy=12.3, slots=2))
    text = console.export_text()
    assert "30/60 children" in text
    assert not [row for row in text.splitlines() if "━" in row and "running" in row], "the bar has a line of its own"
    for word in ("running 2", "queued 0", "failed 0", "entropy 12.30", "slots busy 0/2"):
        assert word in text
    assert max(len(row) for row in text.splitlines()) <= 80


def test_show_counts_for_the_task_of_the_run(cli, simulated_job, run_dir, tmp_path):
    real = {"kind": "train", "epochs": 1, "validation": 200, "crop_padding": 0, "flip": False}
    config = simulated_job(name="small", estimator=real, dataset="digits", budget={"max_children": 2})
    job.execute(config, local=True)
    _, out, _ = cli("show", f"{tmp_path / 'small'}:1", "--json")
    shown = json.loads(out)
    assert shown["task"] == "8x8x1 images, 10 classes"
    best = job.load_run(tmp_path / "small").top(1)[0]
    assert shown["parameters"] == best.evaluation.metrics["parameters"]
    code, _, err = cli("show", f"{tmp_path}/nothere:1")
    assert code == 2
    assert f"{tmp_path}/nothere: no such run" in err


def test_a_budget_that_was_used_before_is_said(cli, config_file, run_dir):
    code, out, _ = cli("run", config_file, "--local", "budget.max_children=8")
    assert code == 0
    assert "60 children were done before, more than budget.max_children=8" in out


def test_a_damaged_field_is_one_line(cli, run_dir):
    with sqlite3.connect(run_dir / JOURNAL) as db:
        db.execute("UPDATE children SET metrics = '{bad'")
        db.execute("INSERT INTO reports VALUES ('', 'r0-u0-i0', 1, 1, 1, '{bad', 1.0)")
    for command in (["status", run_dir], ["top", run_dir, "--json"], ["report", run_dir]):
        code, _, err = cli(*command)
        assert code == 2
        assert "damaged" in err
        assert len(err.splitlines()) == 1
    for read in (lambda record: record.curves("accuracy"), lambda record: record.curve_metric("accuracy")):
        with pytest.raises(RunError, match="damaged"):
            read(job.load_run(run_dir))


def test_curves_say_what_they_are_of(cli, simulated_job, tmp_path):
    config = simulated_job(estimator={"reports": 3}, objectives={"seconds": "max"})
    job.execute(config, local=True)
    _, out, _ = cli("top", tmp_path / "job", "--curves")
    assert "seconds was not reported; accuracy instead" in out
