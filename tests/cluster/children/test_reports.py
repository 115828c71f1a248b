"""Reports over the pipe: the newest arrives, a flood does not, nothing of them is fatal."""

import asyncio
import math
import time

import numpy as np
import pytest
import torch

from nas_cluster.cluster.children.reports import Outbox, Thinned
from nas_cluster.cluster.children.worker import ChildWorker
from nas_cluster.core import reporting
from nas_cluster.core.evaluation import Child, ChildId, Report
from nas_cluster.core.metrics import BadMetric

REPORTERS = """
import math, os, signal, time
from nas_cluster.core.evaluation import Evaluation
from nas_cluster.core.reporting import report
from nas_cluster.estimators import Estimator

class Reporter(Estimator):
    uses_data = False
    does: str = ""
    def open(self, context):
        return self
    def evaluate(self, child):
        getattr(self, self.does)()
        return Evaluation({"accuracy": 0.5})
    def epochs(self):
        for epoch in range(1, 4):
            report(epoch, accuracy=epoch / 4, loss=1 / epoch)
    def flood(self):
        end, step = time.monotonic() + 1, 0
        while time.monotonic() < end:
            step += 1
            report(step, accuracy=step)
        report(step + 1, accuracy=-1)
    def gaps(self):
        report(1, accuracy=math.nan, loss=2.0)
        report(2, accuracy=math.inf)
        report(3, accuracy=0.5, loss=math.nan)
    def parts(self):
        report(1, accuracy=0.5)
        report(1, loss=2.0)
        report(1, accuracy=0.75)
    def killed(self):
        report(1, accuracy=0.5)
        os.kill(os.getpid(), signal.SIGKILL)
    def nonsense(self):
        report(1, accuracy="high")
    def slow(self):
        report(1, accuracy=0.25)
        time.sleep(2.5)
        report(2, accuracy=0.5)
"""


@pytest.fixture
def worker_that(simulated_job, tmp_path, monkeypatch):
    (tmp_path / "reporters.py").write_text(REPORTERS)
    monkeypatch.syspath_prepend(tmp_path)

    def make(does):
        config = simulated_job(estimator={"kind": "reporters:Reporter", "does": does})
        tokens = (0,) * len(config.space.decisions())
        child = Child(ChildId(0, 0, 0), 0, tokens, config.space.decode(tokens).to_json(), "k", 0)
        return ChildWorker("worker-0", config.to_dict(), log=tmp_path / "worker.log"), child

    return make


def answer_of(worker, child):
    async def main():
        await worker.start()
        try:
            return await worker.evaluate(child)
        finally:
            await worker.close()

    return asyncio.run(main())


def curve(reports):
    return [(one.step, dict(one.metrics)) for one in reports]


@pytest.mark.parametrize(
    ("does", "expected"),
    [
        ("epochs", [(step, {"accuracy": step / 4, "loss": 1 / step}) for step in (1, 2, 3)]),
        ("gaps", [(1, {"loss": 2.0}), (3, {"accuracy": 0.5})]),
    ],
)
def test_what_a_child_reports_comes_with_its_answer(worker_that, does, expected):
    before = time.time()
    answer = answer_of(*worker_that(does))
    assert answer.evaluation.status == "ok"
    assert curve(answer.reports) == expected
    assert all(before <= one.time <= time.time() for one in answer.reports)


def test_of_reports_of_one_step_the_union_counts(worker_that):
    assert curve(answer_of(*worker_that("parts")).reports)[-1] == (1, {"accuracy": 0.75, "loss": 2.0})


def test_a_flood_is_thinned_and_its_last_report_arrives(worker_that, measured):
    answer = answer_of(*worker_that("flood"))
    steps = [one.step for one in answer.reports]
    measured(f"child that reports {steps[-1]:,} times a second", f"{len(steps)} reports arrived")
    assert steps == sorted(set(steps))
    assert steps[-1] > 1000
    assert len(steps) <= 60
    assert answer.reports[-1].metrics == {"accuracy": -1}


def test_a_killed_child_leaves_its_reports(worker_that):
    answer = answer_of(*worker_that("killed"))
    assert answer.evaluation.cause == "killed"
    assert curve(answer.reports) == [(1, {"accuracy": 0.5})]


def test_what_is_no_metric_is_the_childs_error(worker_that):
    answer = answer_of(*worker_that("nonsense"))
    assert answer.evaluation.cause == "exception"
    assert "metric 'accuracy' is str 'high'" in answer.evaluation.message


def test_a_child_at_work_is_heard_and_what_is_known_to_have_arrived_is_not_said_again(worker_that):
    worker, child = worker_that("slow")

    async def main():
        await worker.start()
        task = asyncio.create_task(worker.evaluate(child))
        fetched = await asyncio.wait_for(worker.reports(), 10)
        assert not task.done()
        assert [(name, one.step) for name, one in fetched] == [(ChildId(0, 0, 0), 1)]
        again = asyncio.create_task(worker.reports())
        answer = await task
        assert [one.step for one in answer.reports] == [2]
        await asyncio.sleep(0)
        assert not again.done()
        again.cancel()
        await worker.close()

    asyncio.run(main())


def test_what_was_fetched_and_perhaps_lost_goes_along_with_the_answer():
    one, two, other = (Report(step, {"loss": 1.0}, 1.0) for step in (1, 2, 3))
    child, neighbour = ChildId(0, 0, 0), ChildId(0, 0, 1)

    async def main():
        outbox = Outbox()
        outbox.add(child, one)
        assert await outbox.fetch() == [(child, one)]
        outbox.add(child, two)
        outbox.add(neighbour, other)
        assert outbox.take(child) == (one, two)
        assert outbox.take(child) == ()
        assert await outbox.fetch() == [(neighbour, other)]
        assert outbox.take(neighbour) == (other,)

    asyncio.run(main())


def test_a_child_has_ten_thousand_steps(monkeypatch):
    monkeypatch.setattr("nas_cluster.cluster.children.reports._AT_ONCE", 20_000)
    sent = []
    thinned = Thinned(sent.append)
    for step in range(10_500):
        thinned.add(Report(step, {"loss": 1.0}, 1.0))
    thinned.flush()
    assert len(sent) == 10_000


def test_out_of_order_neither_the_highest_step_nor_the_last_call_is_lost(monkeypatch):
    monkeypatch.setattr("nas_cluster.cluster.children.reports._AT_ONCE", 0)
    sent = []
    thinned = Thinned(sent.append)
    for step in (1, 9, 2, 7, 9, 3, 3):
        thinned.add(Report(step, {"loss": float(step)}, 1.0))
    thinned.flush()
    assert [one.step for one in sent] == [9, 3]


def test_a_simulated_child_reports_in_a_process_and_as_a_coroutine(simulated_job, tmp_path):
    def curve_of(number, **estimator):
        config = simulated_job(estimator={"reports": 5, **estimator})
        tokens = (0,) * len(config.space.decisions())
        child = Child(ChildId(0, 0, number), number, tokens, config.space.decode(tokens).to_json(), "k", 7)
        return answer_of(ChildWorker("w", config.to_dict(), log=tmp_path / "log"), child)

    here, there = curve_of(0), curve_of(0, isolated=True)
    assert curve(here.reports) == curve(there.reports)
    assert [one.step for one in here.reports] == [1, 2, 3, 4, 5]
    values = [one.metrics["accuracy"] for one in here.reports]
    assert values == sorted(values)
    assert values[-1] == here.evaluation.metrics["accuracy"]


@pytest.mark.parametrize("step", [1.0, True, "1", -1, 2**63, None])
def test_a_step_is_a_number_of_one(step):
    with pytest.raises(BadMetric, match="is no number of a step"):
        reporting.report(step, loss=1.0)


@pytest.mark.parametrize("step", [np.int64(3), np.uint8(3), torch.tensor(3)])
def test_a_step_may_be_an_integer_of_numpy_or_torch(step):
    heard = []
    with reporting.listening(heard.append):
        reporting.report(step, loss=1.0)
    assert heard[0].step == 3
    assert type(heard[0].step) is int


def test_where_nobody_listens_nothing_happens():
    reporting.report(1, loss=math.nan)
    reporting.made()
