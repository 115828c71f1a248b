"""A job that runs beside its caller, and jobs that are run where an event loop runs already."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from searches import search, trace
from waiting import wait_for

import nas_cluster
from nas_cluster import job
from nas_cluster.core.errors import ConfigError, RunError, RunStopped
from nas_cluster.retrain import retrain

SLOW = {"estimator": {"duration": {"seconds": 0.3}}}
"""60 children then take three seconds; progress is told every half."""
ENDLESS = {"estimator": {"duration": {"seconds": 0.02}}, "budget": {"max_children": 100_000}}


def has_begun(handle):
    return wait_for(lambda: handle.progress().children_done > 5, "child done", 60)


def test_a_run_can_be_looked_at_while_it_goes_on(simulated_job):
    seen = []
    handle = nas_cluster.start(simulated_job(**SLOW), local=True, on_progress=seen.append)
    first = handle.progress()
    assert (first.children_done, first.max_children) == (0, 60)
    assert handle.record.directory == handle.directory
    wait_for(lambda: handle.progress().children_done > 0, "child done", 60)
    record = handle.wait(60)
    assert handle.done
    assert record.counts()["done"] == handle.progress().children_done == 60
    assert seen[-1] == handle.progress()
    assert record.state() == "done"
    assert handle.wait().counts() == record.counts(), "it may be waited for again"


def test_a_run_that_was_stopped_continues_like_one_that_was_not(simulated_job):
    config = simulated_job(**SLOW)
    handle = nas_cluster.start(config, local=True)
    has_begun(handle)
    handle.stop()
    assert handle.done
    assert handle.record.state() == "stopped"
    assert handle.progress().children_done < 60
    with pytest.raises(RunStopped, match="asked by its handle"):
        handle.wait()
    again = nas_cluster.start(config, local=True)
    assert again.progress().children_done > 5, "what was done before counts at once"
    continued = again.wait(60)
    _, whole = search(simulated_job(name="whole"))
    assert trace(continued) == trace(whole)


def test_a_job_that_is_done_is_not_begun_again(simulated_job):
    search(simulated_job())
    handle = nas_cluster.start(simulated_job(), local=True)
    assert handle.wait(10).counts()["done"] == handle.progress().children_done == 60
    handle.stop()
    assert len(handle.record.sessions()) == 1


def test_wrong_input_is_said_by_start(simulated_job, tmp_path):
    search(simulated_job())
    with pytest.raises(ConfigError, match="seed"):
        nas_cluster.start(simulated_job(seed=2), local=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(RunError, match="holds no run"):
        nas_cluster.start(simulated_job(name="other"), local=True)


def test_what_goes_wrong_later_is_said_by_wait_and_logged_when_nobody_waits(simulated_job, monkeypatch, caplog):
    class Backend(job.InProcess):
        async def start_coordinator(self, config, directory):
            raise self.error

    monkeypatch.setattr(job, "InProcess", Backend)
    for error, line in [(ConfigError("no cluster"), "no cluster"), (OSError("surprise"), "ended by a bug")]:
        Backend.error = error
        handle = nas_cluster.start(simulated_job(), local=True)
        handle._thread.join(60)
        assert line in caplog.records[-1].getMessage()
        assert str(handle.directory) in caplog.records[-1].getMessage()
        assert (caplog.records[-1].exc_info is not None) == isinstance(error, OSError)
        with pytest.raises(type(error), match=str(error)):
            handle.wait()
        handle.stop()


def test_nobody_is_told_of_a_stop_that_was_asked_for(simulated_job, caplog):
    handle = nas_cluster.start(simulated_job(**ENDLESS), local=True)
    has_begun(handle)
    handle.stop(wait=False)
    handle._thread.join(60)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_callback_that_raises_does_not_end_the_run_nor_the_look_at_it(simulated_job, caplog):
    def raises(progress):
        raise ValueError("mine")

    handle = nas_cluster.start(simulated_job(), local=True, on_progress=raises)
    assert handle.wait(60).counts()["done"] == handle.progress().children_done == 60
    assert [record.getMessage() for record in caplog.records].count(
        "a callback raised, and is not called any more"
    ) == 1


def test_a_callback_may_stop_the_run(simulated_job):
    begun = threading.Event()

    def enough(progress):
        if progress.children_done > 5:
            begun.wait(10)
            handle.stop()

    handle = nas_cluster.start(simulated_job(**ENDLESS), local=True, on_progress=enough)
    begun.set()
    with pytest.raises(RunStopped):
        handle.wait(60)


def test_a_callback_that_waits_for_its_own_run_is_told_so(simulated_job):
    begun, said = threading.Event(), []

    def waits(progress):
        begun.wait(10)
        try:
            handle.wait()
        except RuntimeError as error:
            said.append(str(error))

    handle = nas_cluster.start(simulated_job(**SLOW), local=True, on_progress=waits)
    begun.set()
    assert handle.wait(60).counts()["done"] == 60
    assert said[0] == "a callback of a run that waits for this run would wait for ever: wait somewhere else"


def test_a_run_in_use_is_named_once(simulated_job, caplog):
    config = simulated_job(**ENDLESS)
    first = nas_cluster.start(config, local=True)
    has_begun(first)
    second = nas_cluster.start(config, local=True)
    second._thread.join(60)
    first.stop()
    message = caplog.records[-1].getMessage()
    assert message.startswith(f"{first.directory}: is in use by process")
    assert message.count(str(first.directory)) == 1


def test_two_runs_go_on_beside_each_other(simulated_job):
    handles = [nas_cluster.start(simulated_job(name=name), local=True) for name in ("one", "two")]
    one, two = (handle.wait(60) for handle in handles)
    assert trace(one) == trace(two)


def test_the_waiting_ends_before_the_run_by_a_timeout_or_an_interrupt(simulated_job):
    handle = nas_cluster.start(simulated_job(**ENDLESS), local=True)
    with pytest.raises(TimeoutError):
        handle.wait(0.01)
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        handle.wait(60)
    assert not handle.done
    has_begun(handle)
    handle.stop()
    assert handle.record.state() == "stopped"


def in_a_loop(function):
    async def call():
        return function()

    return asyncio.run(call())


def test_everything_runs_where_an_event_loop_runs(simulated_job):
    config = simulated_job()
    threads = []
    record = in_a_loop(
        lambda: nas_cluster.run(config, local=True, on_progress=lambda p: threads.append(threading.current_thread()))
    )
    assert record.counts()["done"] == 60
    assert threading.main_thread() not in threads
    record = in_a_loop(lambda: nas_cluster.resume(record.directory, ["budget.max_children=100"], local=True))
    assert record.counts()["done"] == 100
    (result,) = in_a_loop(lambda: retrain(record.directory, seeds=2, local=True))
    assert len(result.ranked[0].rows) == 2
    _, whole = search(simulated_job(name="whole", budget={"max_children": 100}))
    assert trace(record) == trace(whole)


@pytest.mark.parametrize("number,ended", [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "stopped")])
def test_a_signal_stops_what_runs_where_an_event_loop_runs(simulated_job, number, ended):
    config = simulated_job(**ENDLESS)
    before = signal.getsignal(number)

    def send(progress):
        if progress.children_done > 5:
            os.kill(os.getpid(), number)
            raise ValueError("once is enough")

    outcome = in_a_loop(lambda: job.execute(config, local=True, on_progress=send))
    assert (outcome.ended, outcome.reason) == (ended, f"{number.name} received")
    assert signal.getsignal(number) is before
    assert job.load_run(f"{config.storage_path}/{config.name}").state() == ended


def test_who_interrupts_twice_does_not_wait_for_children_in_flight(simulated_job):
    config = simulated_job(
        estimator={"duration": {"seconds": 60.0}}, failures={"stop_grace": 60.0}, budget={"max_children": 6}
    )
    for seconds in (1.0, 1.5):
        threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT)).start()
    started = time.monotonic()
    assert in_a_loop(lambda: job.execute(config, local=True)).ended == "interrupted"
    assert time.monotonic() - started < 20


LEFT_ALONE = """
import sys, time
from pathlib import Path
from nas_cluster import JobConfig, start

handle = start(JobConfig.load(sys.argv[1]), local=True)
while handle.progress().children_done < 2:
    time.sleep(0.1)
print(*(path.read_text() for path in Path("/proc/self/task").glob("*/children")))
"""


@pytest.mark.slow
def test_a_run_that_goes_on_when_the_interpreter_ends_is_stopped_with_its_children(simulated_job, tmp_path):
    real = {"kind": "train", "epochs": 1, "validation": 200, "crop_padding": 0, "flip": False}
    config = simulated_job(estimator=real, dataset="digits", budget={"max_children": 10_000})
    (tmp_path / "job.yaml").write_text(job.write_yaml(config.to_dict()))
    script = [sys.executable, "-c", LEFT_ALONE, str(tmp_path / "job.yaml")]
    ended = subprocess.run(script, capture_output=True, text=True, timeout=120, start_new_session=True)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.strip().endswith(f"{tmp_path / 'job'}: the interpreter ends")
    children = ended.stdout.split()
    assert children
    assert not [child for child in children if Path(f"/proc/{child}").exists()]
    record = job.load_run(tmp_path / "job")
    assert record.state() == "stopped"
    assert record.snapshots(), "the last one"
    assert not [path for path in record.directory.glob("logs/*") if "Traceback" in path.read_text()]


BLOCKED = """
import sys, time
from nas_cluster import JobConfig, start
from nas_cluster.cluster.session import threads

threads._STOP_SECONDS = {"stopped": 1.0, "interrupted": 0.5}
handle = start(JobConfig.load(sys.argv[1]), local=True, on_progress=lambda progress: time.sleep(1000))
time.sleep(1)
"""


def test_a_callback_that_never_returns_does_not_hold_the_interpreter(simulated_job, tmp_path):
    (tmp_path / "job.yaml").write_text(job.write_yaml(simulated_job(**ENDLESS).to_dict()))
    script = [sys.executable, "-c", BLOCKED, str(tmp_path / "job.yaml")]
    assert subprocess.run(script, timeout=60, start_new_session=True).returncode == 0
