"""The supervisor's states and its policy; a lost part without any cluster."""

import asyncio
import time

import pytest
from searches import LEARNERS, gradients, trace

from nas_cluster import job
from nas_cluster.cluster.coordinator.coordinator import Coordinator
from nas_cluster.cluster.messages import PartLost
from nas_cluster.cluster.session.in_process import InProcess
from nas_cluster.cluster.session.stop import Stop
from nas_cluster.cluster.session.supervisor import Supervisor, may_recover
from nas_cluster.core.clock import SystemClock
from nas_cluster.core.errors import RunStopped


class Loses(InProcess):
    """In process, but the first `times` sets of replicas lose one in the middle of minibatch `update`."""

    def __init__(self, times, update):
        super().__init__()
        self.times, self.update = times, update

    async def start_replicas(self, config, indices, shards, coordinator):
        replicas = await super().start_replicas(config, indices, shards, coordinator)
        if indices and self.times > 0:
            self.times -= 1
            step = replicas[-1].step

            async def lossy(update, admission):
                if update == self.update:
                    raise PartLost(f"scripted loss of replica {indices[-1]}")
                return await step(update, admission)

            replicas[-1].step = lossy
        return replicas


class LosesAtPull(InProcess):
    """In process, but the last replica is lost when it pulls for one of these pushes, each time once."""

    def __init__(self, *numbers):
        super().__init__()
        self.numbers = set(numbers)

    async def start_replicas(self, config, indices, shards, coordinator):
        replicas = await super().start_replicas(config, indices, shards, coordinator)
        if replicas:
            servers = replicas[-1]._servers
            pull = servers.pull

            async def lossy(replica, number):
                if number in self.numbers:
                    self.numbers.remove(number)
                    raise PartLost(f"scripted loss at push {number}")
                return await pull(replica, number)

            servers.pull = lossy
        return replicas


def run(config, backend):
    directory = job.prepare(config)
    return asyncio.run(Supervisor(config, directory, backend).run(Stop())), job.load_run(directory)


@pytest.mark.parametrize("update", [0, 4, 9])
def test_a_lost_replica_changes_nothing(simulated_job, update):
    outcome, broken = run(simulated_job(name="broken"), Loses(3, update))
    assert outcome.ended == "done"
    assert [event.kind for event in broken.events()] == ["part_lost"] * 3
    _, whole = run(simulated_job(name="whole"), InProcess())
    assert trace(broken) == trace(whole)


def test_in_asynchronous_mode_every_gradient_still_counts_once(simulated_job):
    config = simulated_job(mode="asynchronous", topology={"controller_replicas": 3})
    outcome, record = run(config, Loses(4, 3))
    assert outcome.ended == "done"
    assert record.counts()["done"] == 60
    assert outcome.progress.updates == len(record.batches())


@pytest.mark.parametrize("mode", ["synchronous", "asynchronous"])
def test_a_replica_lost_between_two_epochs_goes_on_with_what_is_recorded(simulated_job, monkeypatch, mode):
    asked, recorded = [], Coordinator.recorded

    async def spy(self, replica, update):
        asked.append(update)
        return await recorded(self, replica, update)

    monkeypatch.setattr(Coordinator, "recorded", spy)
    changes = {**LEARNERS["ppo"], "topology": {"snapshot_every": 1}, "mode": mode}
    config = simulated_job(name="broken", **changes)
    outcome, broken = run(config, LosesAtPull(2, 14))
    assert outcome.ended == "done"
    assert [event.kind for event in broken.events()] == ["part_lost"] * 2
    assert {0, 4} <= set(asked)
    assert all(b.applied_at is not None and b.learning_epochs == 3 for b in broken.batches())
    if mode == "asynchronous":
        assert outcome.progress.updates == gradients(config, broken)
    else:
        _, whole = run(simulated_job(name="whole", **changes), InProcess())
        assert trace(broken) == trace(whole)


def test_progress_that_cannot_be_shown_is_no_reason_to_end_or_not_to_stop(simulated_job, caplog):
    calls = []

    def raises(progress):
        calls.append(progress)
        raise ValueError("nobody reads this")

    config = simulated_job(estimator={"duration": {"seconds": 0.1}}, budget={"max_children": 600})
    directory = job.prepare(config)

    async def scenario():
        stop = Stop()
        session = asyncio.create_task(Supervisor(config, directory, InProcess(), raises).run(stop))
        while job.load_run(directory).counts()["done"] < 12:
            await asyncio.sleep(0.02)
        stop.ask("enough", "stopped")
        return await asyncio.wait_for(session, 5)

    assert asyncio.run(scenario()).ended == "stopped"
    assert len(calls) == 1
    assert "nobody reads this" in caplog.text


def test_losses_without_end_stop_the_run_resumable(simulated_job):
    config = simulated_job(failures={"max_restarts": 2})
    outcome, record = run(config, Loses(100, 2))
    assert outcome.ended == "failed"
    assert "2 restarts" in outcome.reason
    assert record.state() == "failed"
    assert run(config, InProcess())[0].ended == "done"


def test_a_stop_before_anything_runs(simulated_job):
    config = simulated_job()
    directory = job.prepare(config)

    async def scenario():
        stop = Stop()
        stop.ask("never mind", "interrupted")
        stop.ask("too late", "stopped")
        return await Supervisor(config, directory, InProcess()).run(stop)

    outcome = asyncio.run(scenario())
    assert (outcome.ended, outcome.reason) == ("interrupted", "never mind")
    assert job.load_run(directory).state() == "interrupted"


class NeverStarts(InProcess):
    """In process, but the shards' node never comes."""

    async def start_shards(self, config):
        shards = await super().start_shards(config)

        async def wait(state):
            await asyncio.Event().wait()

        shards[0].restore = wait
        return shards


def test_a_stop_does_not_wait_for_parts_that_do_not_start(simulated_job):
    config = simulated_job(budget={"max_children": 30})
    assert run(config, InProcess())[0].ended == "done"
    config = simulated_job()
    directory = job.prepare(config)

    async def scenario():
        stop = Stop()
        session = asyncio.create_task(Supervisor(config, directory, NeverStarts()).run(stop))
        await asyncio.sleep(0.3)
        assert not session.done()
        stop.ask("enough", "stopped")
        return await asyncio.wait_for(session, 5)

    assert asyncio.run(scenario()).ended == "stopped"
    outcome, record = run(config, InProcess())
    assert outcome.ended == "done"
    _, whole = run(simulated_job(name="whole"), InProcess())
    assert trace(record) == trace(whole)


@pytest.mark.parametrize("grace,more", [(0.0, 0), (30.0, 6)])
def test_children_in_flight_are_dropped_or_finished_as_configured(simulated_job, grace, more):
    budget = {"max_children": 18}
    slow = {"duration": {"seconds": 0.6, "sigma": 0.0}}
    config = simulated_job(estimator=slow, failures={"stop_grace": grace}, budget=budget)
    directory = job.prepare(config)

    async def scenario():
        stop = Stop()
        session = asyncio.create_task(Supervisor(config, directory, InProcess()).run(stop))
        while job.load_run(directory).counts()["done"] < 6:
            await asyncio.sleep(0.02)
        while (counts := job.load_run(directory).counts())["planned"] < 12:
            await asyncio.sleep(0.02)
        stop.ask("enough", "stopped")
        return counts["done"], await session

    done, outcome = asyncio.run(scenario())
    assert (outcome.ended, outcome.reason) == ("stopped", "enough")
    record = job.load_run(directory)
    assert record.counts()["done"] == done + more
    _, continued = run(config.model_copy(update={"failures": config.failures}), InProcess())
    assert continued.counts()["done"] == 18
    _, whole = run(simulated_job(name="whole", budget=budget), InProcess())
    assert [row.reward for row in continued.children()] == [row.reward for row in whole.children()]


def test_interrupted_twice_it_does_not_wait_for_children_in_flight(simulated_job):
    config = simulated_job(estimator={"duration": {"seconds": 60, "sigma": 0.0}}, failures={"stop_grace": 600})
    directory = job.prepare(config)

    async def scenario():
        stop = Stop()
        session = asyncio.create_task(Supervisor(config, directory, InProcess()).run(stop))
        while job.load_run(directory).counts()["planned"] < 6:
            await asyncio.sleep(0.02)
        stop.ask("SIGINT received", "interrupted")
        await asyncio.sleep(0.7)
        assert not session.done(), "the first one waits"
        stop.ask("SIGTERM received", "stopped")
        await asyncio.sleep(0.7)
        assert not session.done(), "who says it another way is not impatient"
        stop.ask("SIGINT received", "interrupted")
        return await asyncio.wait_for(session, 5)

    assert asyncio.run(scenario()).ended == "interrupted"
    record = job.load_run(directory)
    assert record.state() == "interrupted"
    assert (record.counts()["planned"], record.counts()["done"]) == (6, 0)


class Fast(SystemClock):
    """A hundred times as fast."""

    def monotonic(self):
        return 100 * time.monotonic()

    async def sleep(self, seconds):
        await asyncio.sleep(seconds / 100)


class OneIsLate(InProcess):
    """In process, but the second worker only comes when `come` is set, as one does for which there is no card."""

    def __init__(self):
        super().__init__(Fast())
        self.come = asyncio.Event()

    async def spawn_worker(self, config, directory, index, *, test):
        if index == 1:
            await self.come.wait()
        return await super().spawn_worker(config, directory, index, test=test)


def test_workers_that_nobody_brings_are_spoken_of_once(simulated_job):
    config = simulated_job(
        estimator={"isolated": True},
        topology={"slots": 2, "resources": {"CPU": 0.5}},
        budget={"max_children": 100_000},
    )
    directory = job.prepare(config)
    said = []

    async def scenario():
        backend = OneIsLate()

        def note(progress):
            said.append(progress.waits_for)
            if progress.waits_for and progress.children_done > 12:
                backend.come.set()

        stop = Stop()
        session = asyncio.create_task(Supervisor(config, directory, backend, note).run(stop))
        while not (any(said) and not said[-1]):
            await asyncio.sleep(0.02)
        stop.ask("enough", "stopped")
        return await session

    assert asyncio.run(asyncio.wait_for(scenario(), 60)).ended == "stopped"
    each = "of 2 workers: {CPU: 0.5} each"
    assert {"", f"1 {each}"} <= set(said) <= {"", f"1 {each}", f"2 {each}"}
    events = [event.detail for event in job.load_run(directory).events() if event.kind == "workers_awaited"]
    assert len(events) == 1
    assert events[0]["for"].endswith(each)


def test_the_policy():
    assert may_recover(0, 1, coordinator_alive=True)
    assert not may_recover(1, 1, coordinator_alive=True)
    assert not may_recover(0, 1, coordinator_alive=False)


def test_run_stopped_is_raised_by_the_python_face(simulated_job):
    from nas_cluster import run as search

    with pytest.raises(RunStopped, match="failed in a row"):
        search(simulated_job(estimator={"fault_rate": 1.0}, failures={"max_in_a_row": 3}), local=True)
