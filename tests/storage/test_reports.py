"""Reports in the journal: each step once, of the last attempt, in order."""

import pytest

from nas_cluster.core.evaluation import Report
from nas_cluster.storage.journal import Journal
from nas_cluster.storage.record import RunRecord


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
