"""A disk that fills up pauses a search, which goes on when there is room again and comes out the same."""

import asyncio
import os
import subprocess
import threading
import time

import pytest
from searches import trace

from nas_cluster import job
from nas_cluster.cluster.coordinator.commits import GroupCommit
from nas_cluster.core.clock import SystemClock
from nas_cluster.storage.database import StorageFull
from nas_cluster.storage.journal import Journal


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)], capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"no file system can be mounted here: {made.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_search_pauses_while_the_disk_is_full_and_comes_out_the_same(simulated_job, small_disk, measured):
    slow = {"estimator": {"duration": {"seconds": 0.05}}, "topology": {"snapshot_every": 1}}
    config = simulated_job(name="full", storage_path=str(small_disk), **slow)
    seen, outcomes = [], []

    def search():
        outcomes.append(job.execute(config, local=True, on_progress=seen.append))

    thread = threading.Thread(target=search)
    thread.start()
    while not seen or seen[-1].children_done < 12:
        time.sleep(0.02)
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file:  # to the last byte
        for size in (1 << 16, 1 << 12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    deadline = time.monotonic() + 60
    while "paused until there is room" not in seen[-1].last_event:
        assert thread.is_alive() and time.monotonic() < deadline, seen[-1]
        time.sleep(0.02)
    at = seen[-1].children_done
    time.sleep(1.5)
    assert seen[-1].children_done == at, "nothing counts that cannot be written"
    ballast.unlink()
    thread.join(120)
    assert outcomes[0].ended == "done"
    record = job.load_run(small_disk / "full")
    (full,) = [event for event in record.events() if event.kind == "disk_was_full"]
    job.execute(simulated_job(name="whole", **slow), local=True)
    assert trace(record) == trace(job.load_run(small_disk.parent / "whole"))
    measured("disk full", f"paused for {full.detail['seconds']} s, trace bit-identical")


def test_a_stop_does_not_wait_for_room(simulated_job, tmp_path):
    config = simulated_job(name="run")
    directory = job.prepare(config)
    with Journal.open(directory) as journal:
        pages = journal._db.execute("PRAGMA page_count").fetchone()[0]
        journal._db.execute(f"PRAGMA max_page_count = {pages}")

        async def main():
            told = []
            commit = GroupCommit(journal, told.append)
            waiting = asyncio.create_task(commit(lambda: journal.event("large", text="x" * 100_000)))
            await asyncio.sleep(0.05)
            assert not waiting.done()
            assert "full" in told[0]
            commit.give_up()
            with pytest.raises(StorageFull):
                await waiting
            journal._db.execute(f"PRAGMA max_page_count = {pages + 1000}")
            await commit(lambda: journal.event("large", text="x" * 100_000))
            assert told[1:] == [None]

        asyncio.run(main())
    assert [event.kind for event in job.load_run(directory).events()] == ["large"]


_real_time = time.time


class Jumping(SystemClock):
    """Somebody sets the machine's clock an hour forward or back, again and again."""

    def now(self):
        return _real_time() + (3600 if os.urandom(1)[0] % 2 else -3600)


def test_a_clock_that_jumps_an_hour_changes_nothing(simulated_job, monkeypatch, measured):
    limits = {"budget": {"max_children": 60, "max_hours": 0.5}, "failures": {"time_limit": 100.0}}
    job.execute(simulated_job(name="steady", **limits), local=True)
    monkeypatch.setattr("nas_cluster.cluster.session.in_process.SystemClock", Jumping)
    monkeypatch.setattr("time.time", Jumping().now)
    outcome = job.execute(simulated_job(name="jumping", **limits), local=True)
    assert outcome.ended == "done"
    runs = [job.load_run(f"{simulated_job().storage_path}/{name}") for name in ("steady", "jumping")]
    assert trace(runs[0]) == trace(runs[1])
    measured("clock moved an hour at every look", "trace bit-identical")
