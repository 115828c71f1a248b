"""Leases: silence ends a part, and tells its owner; a pause of the one who measures does neither."""

import asyncio
import threading

import pytest

from nas_cluster.cluster.session.lease import LEASE_SECONDS, PATIENCE_SECONDS, Lease, Unanswered, until_lost
from nas_cluster.core.clock import SystemClock


class Script:
    """A clock that moves only when somebody sleeps; `events` happen at their times."""

    def __init__(self, **events):
        self.time = 0.0
        self.events = {float(key[1:]): what for key, what in events.items()}

    def monotonic(self):
        return self.time

    def sleep(self, seconds):
        self.time += seconds
        for due in sorted(key for key in self.events if key <= self.time):
            self.events.pop(due)()


def lapse(script, renewals=(), seconds=LEASE_SECONDS):
    """When a lease lapses that is renewed at these times."""
    lapsed = []
    lease = Lease(lambda: lapsed.append(script.time), seconds, monotonic=script.monotonic, sleep=script.sleep)
    lease._renewed = 0.0
    for due in renewals:
        script.events[float(due)] = lambda: setattr(lease, "_renewed", script.time)
    lease.keep()
    return lapsed[0]


def test_a_lease_lapses_when_it_is_not_renewed():
    assert LEASE_SECONDS < lapse(Script()) <= LEASE_SECONDS + 2
    assert 60 + LEASE_SECONDS < lapse(Script(), range(1, 61)) <= 60 + LEASE_SECONDS + 2


def test_an_outage_shorter_than_the_lease_ends_nothing():
    renewals = [*range(1, 20), *range(45, 50)]
    assert lapse(Script(), renewals) > 49 + LEASE_SECONDS


def test_a_part_that_was_itself_stopped_first_listens_again():
    script = Script()
    script.events[10.0] = lambda: setattr(script, "time", 500.0)
    assert lapse(script, range(1, 10)) > 500 + LEASE_SECONDS


def test_the_lease_of_a_part_nobody_has_asked_for_never_lapses():
    before = threading.active_count()
    lease = Lease(lambda: pytest.fail("lapsed"), seconds=0.0)
    assert threading.active_count() == before
    assert lease._renewed is None


class Owner(SystemClock):
    """Time passes only while the owner sleeps."""

    time = 0.0

    def monotonic(self):
        return self.time

    async def sleep(self, seconds):
        self.time += seconds


def test_an_owner_notices_that_beats_stay_unanswered():
    clock = Owner()

    async def beat():
        if clock.time >= 100:
            raise Unanswered

    reason = asyncio.run(until_lost(beat, clock=clock))
    assert reason == f"no sign of life for {PATIENCE_SECONDS:.0f} s"
    assert 99 + PATIENCE_SECONDS <= clock.time <= 101 + PATIENCE_SECONDS


def test_an_owner_that_was_itself_stopped_asks_again():
    clock, asked = Owner(), []

    async def beat():
        asked.append(clock.time)
        if clock.time == 10:
            clock.time = 500.0  # the whole process stood still in the middle of a beat
            raise Unanswered
        if len(asked) == 50:
            raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        asyncio.run(until_lost(beat, clock=clock))


def test_a_beat_that_hangs_is_silence_too():
    async def beat():
        await asyncio.Event().wait()

    async def main():
        return await until_lost(beat, 0.2)

    assert "no sign of life" in asyncio.run(asyncio.wait_for(main(), 10))


def test_an_outage_that_ends_in_time_is_no_loss():
    clock, asked = Owner(), []

    async def beat():
        asked.append(clock.time)
        if clock.time % 100 > 100 - PATIENCE_SECONDS + 2:
            raise Unanswered
        if clock.time > 1000:
            raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        asyncio.run(until_lost(beat, clock=clock))


def test_what_says_that_the_part_is_gone_is_passed_on():
    async def beat():
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        asyncio.run(until_lost(beat))
