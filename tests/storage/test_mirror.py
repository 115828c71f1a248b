"""A run on shared storage: taken over by another machine, torn uploads, fencing."""

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import fsspec
import pytest
from searches import trace

from nas_cluster import job
from nas_cluster.cli import main
from nas_cluster.cli.places import HERE, READABLE
from nas_cluster.config.loading import write_yaml
from nas_cluster.core.errors import Fenced, RunError
from nas_cluster.storage import claim
from nas_cluster.storage.layout import run_directory
from nas_cluster.storage.mirror import Mirror


@pytest.fixture
def shared(tmp_path):
    return (tmp_path / "shared").as_uri()


@pytest.fixture(autouse=True)
def quick_claims(monkeypatch):
    for name, seconds in {"_RENEW_SECONDS": 0.2, "_SILENT_SECONDS": 2.0, "_SETTLE_SECONDS": 0.1}.items():
        monkeypatch.setattr(claim, name, seconds)


def machine(monkeypatch, path):
    """From here on, work as a machine whose local disk is `path`."""
    monkeypatch.setenv("NAS_CLUSTER_CACHE", str(path))


def test_another_machine_takes_the_run_over_and_comes_out_the_same(simulated_job, tmp_path, shared, monkeypatch):
    machine(monkeypatch, tmp_path / "one")
    job.execute(simulated_job(name="moved", storage_path=shared, budget={"max_children": 33}), local=True)
    machine(monkeypatch, tmp_path / "two")
    config = simulated_job(name="moved", storage_path=shared)
    assert not run_directory(shared, "moved").exists()
    job.execute(config, local=True)
    record = job.load_run(run_directory(shared, "moved"))
    assert len(record.sessions()) == 2
    job.execute(simulated_job(name="whole"), local=True)
    assert trace(record) == trace(job.load_run(tmp_path / "whole"))


def test_another_machine_reads_a_run_by_its_url_and_this_one_by_its_name(
    simulated_job, tmp_path, shared, monkeypatch, capsys
):
    machine(monkeypatch, tmp_path / "one")
    job.execute(simulated_job(name="read", storage_path=shared), local=True)
    here = run_directory(shared, "read")
    assert HERE.convert("read", None, None) == here
    assert HERE.convert("other", None, None) == Path("other")
    assert READABLE.convert(f"{shared}/read", None, None) != here, "never into a working copy"
    machine(monkeypatch, tmp_path / "two")
    with pytest.raises(SystemExit, match="0"):
        main(["top", f"{shared}/read", "-k", "1", "--json"])
    best = json.loads(capsys.readouterr().out)[0]
    assert best["child_id"] == str(job.load_run(here).top(1)[0].child.child_id)
    assert not run_directory(shared, "read").exists()
    with pytest.raises(RunError, match="no run is mirrored there"):
        job.fetch(f"{shared}/raed")


def test_shared_tensors_go_along_to_object_storage(simulated_job, tmp_path, monkeypatch):
    url = f"memory://{tmp_path.name}"
    sharing = {"estimator": {"kind": "shared_sum:SharedSum"}, "topology": {"slots": 2}}
    machine(monkeypatch, tmp_path / "one")
    job.execute(simulated_job(storage_path=url, budget={"max_children": 45}, **sharing), local=True)
    machine(monkeypatch, tmp_path / "two")
    assert job.execute(simulated_job(storage_path=url, **sharing), local=True).ended == "done"
    record = job.load_run(run_directory(url, "job"))
    assert not any(event.kind == "shared_tensors_refused" for event in record.events()), "they were there"
    job.execute(simulated_job(name="whole", **sharing), local=True)
    whole = job.load_run(tmp_path / "whole")
    assert trace(record) == trace(whole)
    assert [row.result for row in record.phases()] == [row.result for row in whole.phases()]
    kept = fsspec.filesystem("memory").ls(f"/{tmp_path.name}/job/shared", detail=False)
    assert "00003-" in max(Path(name).name for name in kept)
    assert len(kept) <= 3, "as many as there are copies"


def test_a_torn_or_damaged_copy_is_passed_over(simulated_job, tmp_path, shared, monkeypatch):
    machine(monkeypatch, tmp_path / "one")
    job.execute(simulated_job(name="torn", storage_path=shared), local=True)
    copies = sorted((tmp_path / "shared" / "torn").glob("journal-*.sqlite"))
    assert len(copies) == 3
    copies[-1].write_bytes(copies[-1].read_bytes()[:-100])
    machine(monkeypatch, tmp_path / "two")
    Mirror(shared, "torn").pull(run_directory(shared, "torn"))
    assert job.load_run(run_directory(shared, "torn")).counts()["planned"] > 0
    for copy in copies:
        copy.write_bytes(b"")
    shutil.rmtree(tmp_path / "two")
    with pytest.raises(RunError, match="none of its 3 copies is whole"):
        Mirror(shared, "torn").pull(run_directory(shared, "torn"))


def test_a_machine_that_lost_the_run_is_fenced(simulated_job, tmp_path, shared, monkeypatch):
    machine(monkeypatch, tmp_path / "one")
    job.execute(simulated_job(name="fenced", storage_path=shared, budget={"max_children": 12}), local=True)
    older = run_directory(shared, "fenced")
    machine(monkeypatch, tmp_path / "two")
    job.execute(simulated_job(name="fenced", storage_path=shared, budget={"max_children": 24}), local=True)
    with pytest.raises(Fenced, match="another machine has taken this run over"):
        Mirror(shared, "fenced").push(older)


def test_old_copies_and_their_snapshots_go(simulated_job, tmp_path, shared, monkeypatch):
    machine(monkeypatch, tmp_path / "one")
    topology = {"snapshot_every": 1}
    job.execute(simulated_job(name="kept", storage_path=shared, topology=topology), local=True)
    place = tmp_path / "shared" / "kept"
    assert len(list(place.glob("manifest-*"))) == 3
    assert len(list((place / "snapshots").iterdir())) <= 6


def test_a_second_driver_is_refused_while_the_first_lives(simulated_job, tmp_path, shared, monkeypatch, measured):
    slow = {"estimator": {"duration": {"seconds": 0.2}}, "budget": {"max_children": 90}}
    machine(monkeypatch, tmp_path / "one")
    config = simulated_job(name="shared", storage_path=shared, **slow)
    first = threading.Thread(target=job.execute, args=(config,), kwargs={"local": True})
    first.start()
    while not (tmp_path / "shared" / "shared" / "manifest-000001.json").exists():
        time.sleep(0.05)
    machine(monkeypatch, tmp_path / "two")
    with pytest.raises(RunError, match="is in use by process"):
        job.execute(config, local=True)
    first.join()
    assert job.execute(config, local=True).ended == "done"
    record = job.load_run(run_directory(shared, "shared"))
    assert record.counts()["done"] == 90
    assert [session.ended for session in record.sessions()] == ["done"], "the first one ended as if alone"
    measured("two drivers on one run", "the second refused, 90 children once")


@pytest.mark.slow
def test_a_driver_that_was_taken_for_dead_is_fenced_when_it_comes_back(
    simulated_job, tmp_path, shared, monkeypatch, measured
):
    """It stood still for longer than its claim holds; meanwhile another machine has gone on."""
    slow = {"estimator": {"duration": {"seconds": 0.1}}, "budget": {"max_children": 90}}
    config = simulated_job(name="taken", storage_path=shared, **slow)
    machine(monkeypatch, tmp_path / "one")
    file = tmp_path / "taken.yaml"
    file.write_text(write_yaml(config.to_dict()))
    command = [sys.executable, "-m", "nas_cluster.cli", "run", str(file), "--local"]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    place = tmp_path / "shared" / "taken"
    while not (place / "manifest-000002.json").exists():
        assert first.poll() is None, first.communicate()[0]
        time.sleep(0.02)
    first.send_signal(signal.SIGSTOP)
    machine(monkeypatch, tmp_path / "two")
    assert job.execute(config, local=True).ended == "done"
    copies = sorted(place.glob("manifest-*"))
    first.send_signal(signal.SIGCONT)
    back = time.monotonic()
    output, _ = first.communicate(timeout=200)
    measured("a driver taken for dead comes back", f"fenced, it ended after {time.monotonic() - back:.1f} s")
    assert first.returncode == 75, output
    assert "has taken this run over" in output
    assert sorted(place.glob("manifest-*")) == copies, "it has added nothing"
    record = job.load_run(run_directory(shared, "taken"))
    assert sorted(row.child.number for row in record.children()) == list(range(90))
    assert all(row.done for row in record.children())
