"""Reports in the journal: each step once, of the last attempt, in order."""

from dataclasses import replace

import pytest

from nas_cluster.core.evaluation import Child, ChildId, Evaluation, Report
from nas_cluster.storage.journal import Journal
from nas_cluster.storage.record import RunRecord
from nas_cluster.storage.rows import BatchRow, ChildRow, TrainingRow


@pytest.fixture
def run(tmp_path):
    Journal.create(tmp_path / "run", "run", {"estimator": {"kind": "train"}})
    return tmp_path / "run"


def at(step, value, time=1.0):
    return Report(step, {"accuracy": value}, time)


def test_a_report_said_twice_changes_nothing_and_the_later_of_two_counts(run):
    with Journal.open(run) as journal:
        journal.add_reports("c", 1, [at(2, 0.2), at(1, 0.1)])
        journal.add_reports("c", 1, [at(1, 0.1)])
        assert journal.reports("c") == [at(1, 0.1), at(2, 0.2)]
        journal.add_reports("c", 1, [at(2, 0.3, time=2.0)])
        journal.add_reports("c", 1, [at(2, 0.2)])
        assert journal.reports("c") == [at(1, 0.1), at(2, 0.3, time=2.0)]


def test_of_several_attempts_the_last_ones_curve_counts(run):
    with Journal.open(run) as journal:
        journal.add_reports("c", 1, [at(1, 0.1), at(2, 0.2)])
        journal.add_reports("c", 2, [at(1, 0.4)])
        journal.add_reports("d", 1, [Report(1, {"loss": 3.0}, 1.0), at(2, 0.5)])
        journal.add_reports("c", 1, [at(1, 0.9)], stage="winner")
    record = RunRecord.open(run)
    assert record.reports("c") == [at(1, 0.4)]
    assert record.reports("c", stage="winner") == [at(1, 0.9)]
    assert record.reports("nobody") == []
    assert record.curves("accuracy") == {"c": [(1, 0.4)], "d": [(2, 0.5)]}
    assert record.curves("loss") == {"d": [(1, 3.0)]}
    assert record.curves("flops") == {}


def test_of_two_reports_of_a_step_the_union_counts_whatever_came_between(run):
    with Journal.open(run) as journal:
        journal.add_reports("c", 1, [Report(1, {"accuracy": 0.5, "loss": 2.0}, 1.0)])
        journal.add_reports("c", 1, [at(2, 0.6, time=2.0)])
        journal.add_reports("c", 1, [Report(1, {"accuracy": 0.75, "flops": 7}, 3.0)])
        journal.add_reports("c", 1, [Report(1, {"accuracy": 0.5, "loss": 2.0}, 1.0)])
        assert journal.reports("c")[0] == Report(1, {"accuracy": 0.75, "loss": 2.0, "flops": 7}, 3.0)


def planned(number):
    return ChildRow(Child(ChildId(0, 0, number), number, (), {}, str(number), number), -1.0, 1.0, planned_at=1.0)


def scored(row, attempts=1):
    evaluation = Evaluation({"accuracy": 0.5, "seconds": 2.0})
    return replace(row, evaluation=evaluation, metric=0.5, reward=0.5, finished_at=2.0, attempts=attempts)


def test_only_the_life_whose_answer_was_committed_shows(run):
    killed_later, silent_later = planned(0), planned(1)
    with Journal.open(run) as journal:
        journal.plan(BatchRow(0, 0, 0, "h", 1.0), [killed_later, silent_later])
        journal.add_reports("r0-u0-i0", 1, [at(step, 0.9, time=9.0) for step in range(1, 7)])
        journal.add_reports("r0-u0-i0", 2, [at(1, 0.8)])
        journal.add_reports("r0-u0-i1", 1, [at(1, 0.9)])
        journal.add_reports("r0-u0-i0", 1, [at(1, 0.7)], stage="winner")
    with Journal.open(run) as journal:
        journal.add_reports("r0-u0-i0", 1, [at(1, 0.1)])
        assert journal.reports("r0-u0-i0") == [at(1, 0.1)]
        assert journal.curves("accuracy")["r0-u0-i0"] == [(1, 0.1)]
        journal.done(scored(killed_later), [at(2, 0.2)])
        journal.done(scored(silent_later))
        journal.done(scored(killed_later, attempts=3), [at(3, 0.3)])
    record = RunRecord.open(run)
    assert record.curves("accuracy") == {"r0-u0-i0": [(1, 0.1), (2, 0.2)]}
    assert record.reports("r0-u0-i0", stage="winner") == [at(1, 0.7)]


def test_the_same_holds_for_trainings_after_the_search(run):
    row = TrainingRow("winner", "r0-u0-i0", {}, 1, 0, {"estimator": {}})
    with Journal.open(run) as journal:
        journal.plan_trainings([row])
        journal.add_reports(row.name, 1, [at(step, 0.9) for step in (1, 2, 3)], stage="winner")
    with Journal.open(run) as journal:
        evaluation = Evaluation({"accuracy": 0.5, "seconds": 2.0})
        journal.training_done(replace(row, evaluation=evaluation, metric=0.5, finished_at=2.0), 1, [at(1, 0.1)])
    assert RunRecord.open(run).reports(row.name, stage="winner") == [at(1, 0.1)]
