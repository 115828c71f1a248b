"""An actor as the plain object that it is: the parts it carries, and those it no longer does. On Ray it is tried in
`tests/integration/test_on_ray.py`."""

import asyncio

import pytest

from nas_cluster.cluster.messages import PartLost
from nas_cluster.cluster.on_ray.actor import Actor


class Part:
    def __init__(self, name):
        self.name = name
        self.heard = []

    def hear(self, word):
        self.heard.append(word)
        return self.name

    async def wait(self):
        await asyncio.Event().wait()


def test_calls_reach_the_part_they_name():
    actor = Actor([lambda: Part("a"), lambda: Part("b")])
    assert asyncio.run(actor.call(0, 1, "hear", "word")) == "b"


def test_a_part_that_cannot_be_made_raises_its_own_error_each_time():
    actor = Actor([lambda: 1 / 0])
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            asyncio.run(actor.call(0, 0, "hear", "word"))


def test_clearing_breaks_off_calls_and_later_ones_for_the_old_parts_find_them_lost():
    old, new = Part("old"), Part("new")

    async def scenario():
        actor = Actor([lambda: old])
        under_way = asyncio.create_task(actor.call(0, 0, "wait"))
        await actor.call(0, 0, "hear", "in time")
        generation = await actor.clear()
        with pytest.raises(PartLost):
            await under_way
        with pytest.raises(PartLost):
            await actor.call(0, 0, "hear", "between")
        await actor.take([lambda: new])
        with pytest.raises(PartLost):
            await actor.call(0, 0, "hear", "too late")
        return await actor.call(generation, 0, "hear", "to the new one")

    assert asyncio.run(scenario()) == "new"
    assert old.heard == ["in time"]
    assert new.heard == ["to the new one"]
