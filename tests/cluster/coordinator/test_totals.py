"""The running totals of a session."""

from dataclasses import replace

import pytest

from nas_cluster import job
from nas_cluster.cluster.coordinator.totals import Totals
from nas_cluster.core.clock import SystemClock
from nas_cluster.core.evaluation import Child, ChildId, Evaluation
from nas_cluster.storage.journal import Journal
from nas_cluster.storage.rows import ChildRow


class Stopwatch(SystemClock):
    """Stands still until a test moves it."""

    seconds = 0.0

    def monotonic(self):
        return self.seconds


def done(number):
    row = ChildRow(Child(ChildId(0, 0, number), number, (), {}, str(number), number), -1.0, 1.0, planned_at=1.0)
    return replace(row, evaluation=Evaluation({"accuracy": 0.5, "seconds": 2.0}), metric=0.5, reward=0.5)


def test_the_time_left_is_reckoned_from_children_not_from_how_long_the_start_took(simulated_job):
    config = simulated_job(budget={"max_children": 11})
    directory, clock = job.prepare(config), Stopwatch()
    with Journal.open(directory) as journal:
        totals = Totals(config, journal, clock)

        def left():
            return totals.progress(busy=0, slots=2, waiting=0).seconds_left

        clock.seconds = 300.0  # no node was free
        totals.child_done(done(0))
        assert left() is None, "nothing is known of how fast children come"
        for number in range(1, 5):
            clock.seconds += 3.0
            totals.child_done(done(number))
        assert left() == pytest.approx(6 * 3.0)


def test_the_mean_is_that_of_all_children_and_goes_on_after_a_resume(simulated_job):
    config = simulated_job(budget={"max_children": 60})
    record, told = job.run(config, local=True), []
    rewards = [row.reward for row in record.children()]
    assert record.mean_reward() == pytest.approx(sum(rewards) / 60)
    version = record.newest_version()
    assert version > 0
    record = job.resume(record.directory, ["budget.max_children=120"], local=True, on_progress=told.append)
    rewards = [row.reward for row in record.children()]
    assert told[-1].mean_reward == pytest.approx(sum(rewards) / 120)
    assert told[0].updates >= version
