"""The queue and its slots: order, loss of workers, retries, back-pressure, closing."""

import asyncio

import pytest

from nas_cluster.cluster.children.pool import ChildPool
from nas_cluster.cluster.messages import Answer, PartLost
from nas_cluster.core.clock import SystemClock
from nas_cluster.core.errors import DataError, RunStopped
from nas_cluster.core.evaluation import Child, ChildId, Evaluation, Report


class NoWait(SystemClock):
    async def sleep(self, seconds):
        await asyncio.sleep(0)


class Worker:
    """Scores a child by calling `behaviour(child)`; `said` is what it is asked for as reports, once."""

    def __init__(self, behaviour, start=None, said=()):
        self.behaviour, self._start, self.closed, self._said = behaviour, start, False, list(said)

    async def start(self):
        if self._start:
            raise self._start

    async def evaluate(self, child):
        answer = await self.behaviour(child)
        return answer if isinstance(answer, Answer) else Answer(answer)

    async def reports(self):
        if not self._said:
            await asyncio.Event().wait()
        said, self._said = self._said, []
        return said

    async def close(self):
        self.closed = True


def child(number):
    return Child(ChildId(0, 0, number), number, (), {}, str(number), 0)


async def ok(child):
    await asyncio.sleep(0)
    return Evaluation({"accuracy": float(child.number)})


def pool_of(behaviour, workers=1, **options):
    async def spawn(index):
        return Worker(behaviour)

    return ChildPool(spawn, workers, NoWait(), **options)


def scenario(main):
    asyncio.run(asyncio.wait_for(main(), 10))


def test_every_child_is_scored_by_some_slot_in_order_of_arrival():
    order = []

    async def note(child):
        order.append(child.number)
        return await ok(child)

    async def main():
        pool = pool_of(note)
        pool.start()
        results = await asyncio.gather(*(pool.evaluate(child(i)) for i in range(20)))
        assert [r.evaluation.metrics["accuracy"] for r in results] == list(map(float, range(20)))
        assert order == list(range(20))
        await pool.close()

    scenario(main)


def test_no_more_children_run_than_there_are_slots_and_all_slots_are_used():
    running, most = 0, 0

    async def slow(child):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        return Evaluation({"accuracy": 0.0})

    async def main():
        pool = pool_of(slow, workers=2, slots_per_worker=3)
        pool.start()
        await asyncio.gather(*(pool.evaluate(child(i)) for i in range(30)))
        assert most == pool.slots == 6
        assert pool.busy == pool.waiting == 0
        await pool.close()

    scenario(main)


def test_a_lost_worker_is_replaced_and_its_child_tried_again_first():
    seen, events = [], []

    async def lose_once(child):
        seen.append(child.number)
        if child.number == 1 and seen.count(1) == 1:
            raise PartLost("gone")
        return await ok(child)

    async def main():
        pool = pool_of(lose_once, on_event=lambda kind, detail: events.append(kind))
        pool.start()
        results = await asyncio.gather(*(pool.evaluate(child(i)) for i in range(4)))
        assert [r.attempts for r in results] == [1, 2, 1, 1]
        assert seen == [0, 1, 1, 2, 3]
        assert events == ["child_retried", "worker_lost"]
        await pool.close()

    scenario(main)


def test_a_worker_with_many_slots_loses_none_of_its_children():
    lost = False

    async def lose_all(child):
        nonlocal lost
        await asyncio.sleep(0.01)
        if child.number == 2 and not lost:
            lost = True
            raise PartLost("gone")
        await asyncio.sleep(0.01)
        return Evaluation({"accuracy": float(child.number)})

    async def main():
        pool = pool_of(lose_all, slots_per_worker=5)
        pool.start()
        results = await asyncio.gather(*(pool.evaluate(child(i)) for i in range(8)))
        assert [r.evaluation.metrics["accuracy"] for r in results] == list(map(float, range(8)))
        await pool.close()

    scenario(main)


def test_retries_are_counted_and_end():
    async def lose(child):
        raise PartLost("node gone")

    async def main():
        pool = pool_of(lose, retries=2)
        pool.start()
        scored = await pool.evaluate(child(0))
        assert (scored.attempts, scored.evaluation.cause) == (3, "worker_lost")
        await pool.close()

    scenario(main)


def test_a_childs_own_failure_is_not_retried():
    async def fail(child):
        return Evaluation.failure("segfault", "boom")

    async def main():
        pool = pool_of(fail, retries=5)
        pool.start()
        assert (await pool.evaluate(child(0))).attempts == 1
        await pool.close()

    scenario(main)


def test_a_worker_that_cannot_read_the_data_breaks_the_pool_with_the_reason():
    async def main():
        async def spawn(index):
            return Worker(ok, start=DataError("no such file"))

        pool = ChildPool(spawn, 2, NoWait())
        pool.start()
        with pytest.raises(DataError, match="no such file"):
            await pool.evaluate(child(0))
        with pytest.raises(DataError):
            await pool.evaluate(child(1))
        await pool.close()

    scenario(main)


def test_closing_drops_running_and_waiting_children():
    async def hang(child):
        await asyncio.sleep(1000)

    async def main():
        pool = pool_of(hang)
        pool.start()
        tasks = [asyncio.create_task(pool.evaluate(child(i))) for i in range(3)]
        while pool.busy == 0:
            await asyncio.sleep(0)
        await pool.close()
        assert all(isinstance(r, RunStopped) for r in await asyncio.gather(*tasks, return_exceptions=True))

    scenario(main)


def test_back_pressure_waits_for_a_short_queue():
    gate = asyncio.Event()

    async def gated(child):
        await gate.wait()
        return Evaluation({"accuracy": 0.0})

    async def main():
        pool = pool_of(gated)
        pool.start()
        tasks = [asyncio.create_task(pool.evaluate(child(i))) for i in range(4)]
        await asyncio.sleep(0.01)
        below = asyncio.create_task(pool.wait_below(2))
        await asyncio.sleep(0.01)
        assert not below.done()
        gate.set()
        await below
        await asyncio.gather(*tasks)
        await pool.close()

    scenario(main)


def test_draining_lets_running_children_end_and_starts_no_more():
    release = asyncio.Event()
    started = []

    async def slow(child):
        started.append(child.number)
        await release.wait()
        return Evaluation({"accuracy": float(child.number)})

    async def scenario():
        pool = pool_of(slow, workers=2)
        pool.start()
        results = [asyncio.create_task(pool.evaluate(child(number))) for number in range(5)]
        while len(started) < 2:
            await asyncio.sleep(0)
        drained = asyncio.create_task(pool.drain(60))
        await asyncio.sleep(0.01)
        assert not drained.done()
        release.set()
        await asyncio.wait_for(drained, 5)
        await pool.close()
        return await asyncio.gather(*results, return_exceptions=True)

    results = asyncio.run(scenario())
    assert started == [0, 1]
    assert [r.evaluation.metrics["accuracy"] for r in results[:2]] == [0, 1]
    assert all(isinstance(r, RunStopped) for r in results[2:])


def test_draining_has_an_end():
    async def hangs(child):
        await asyncio.Event().wait()

    async def scenario():
        pool = pool_of(hangs)
        pool.start()
        result = asyncio.create_task(pool.evaluate(child(0)))
        await asyncio.sleep(0.01)
        await pool.drain(0.05)
        await pool.close()
        with pytest.raises(RunStopped):
            await result

    asyncio.run(scenario())


def test_reports_are_handed_on_while_a_child_runs_and_with_its_answer():
    handed, release = [], None
    early, late = Report(1, {"loss": 2.0}, 1.0), Report(2, {"loss": 1.0}, 2.0)

    async def wait(child):
        await release.wait()
        return Answer(Evaluation({"accuracy": 0.5}), (late,))

    async def main():
        nonlocal release
        release = asyncio.Event()

        async def spawn(index):
            return Worker(wait, said=[(ChildId(0, 0, 0), early), (ChildId(0, 0, 9), early), (ChildId(0, 0, 0), late)])

        def take(*reported):
            handed.append(reported)
            release.set()

        pool = ChildPool(spawn, 1, NoWait(), on_reports=take)
        task = asyncio.create_task(pool.evaluate(child(0)))
        await asyncio.sleep(0)  # it waits when the worker comes
        pool.start()
        scored = await task
        assert handed == [(ChildId(0, 0, 0), 1, [early, late])], "a child that is not at work has answered for itself"
        assert (scored.reports, scored.attempts) == ((late,), 1)
        await pool.close()

    scenario(main)


def test_a_lost_worker_is_noticed_by_its_slots_so_that_retries_are_counted():
    """Who asks for reports is told of the loss as well, and perhaps first."""

    class Lost(Worker):
        async def reports(self):
            raise PartLost("gone")

    async def lose(child):
        await asyncio.sleep(0.01)
        raise PartLost("gone")

    async def main():
        async def spawn(index):
            return Lost(lose)

        pool = ChildPool(spawn, 1, NoWait(), retries=1)
        pool.start()
        scored = await pool.evaluate(child(0))
        assert (scored.evaluation.cause, scored.attempts) == ("worker_lost", 2)
        await pool.close()

    scenario(main)


def test_what_a_child_reported_before_it_was_killed_is_handed_on_before_it_is_tried_again():
    handed = []
    said = Report(1, {"loss": 2.0}, 1.0)

    async def die_once(child):
        return Answer(Evaluation.failure("killed", "m") if not handed else Evaluation({"accuracy": 1.0}), (said,))

    async def main():
        pool = pool_of(die_once, on_reports=lambda *reported: handed.append(reported))
        pool.start()
        scored = await pool.evaluate(child(0))
        assert handed == [(ChildId(0, 0, 0), 1, (said,))]
        assert (scored.attempts, scored.reports) == (2, (said,))
        await pool.close()

    scenario(main)
