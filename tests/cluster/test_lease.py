"""Leases: silence ends a part, and tells its owner; a pause of the one who measures does neither."""

import asyncio
import threading

import pytest

from nas_cluster.cluster.lease import LEASE_SECONDS, Lease, Unanswered, until_lost
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
    renewals = [*range(1, 20), *range(31, 50)]
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


class FastClock(SystemClock):
    """A second takes a millisecond."""

    def monotonic(self):
        return super().monotonic() * 1000

    async def sleep(self, seconds):
        await asyncio.sleep(seconds / 1000)


def owner(beat, seconds=LEASE_SECONDS):
    return asyncio.run(asyncio.wait_for(until_lost(beat, seconds, FastClock()), 20))


def test_an_owner_notices_that_beats_stay_unanswered():
    answered = []

    async def beat():
        if len(answered) == 5:
            raise Unanswered
        answered.append(1)

    assert owner(beat, seconds=50).startswith("no sign of life for ")
    assert len(answered) == 5


def test_a_beat_that_hangs_is_silence_too():
    async def beat():
        await asyncio.Event().wait()

    async def main():
        return await until_lost(beat, 0.2)

    assert "no sign of life" in asyncio.run(asyncio.wait_for(main(), 10))


def test_an_outage_that_ends_in_time_is_no_loss():
    beats = []

    async def beat():
        beats.append(1)
        if len(beats) % 10:
            raise Unanswered
        if len(beats) == 40:
            raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        owner(beat, seconds=10_000)


def test_what_says_that_the_part_is_gone_is_passed_on():
    async def beat():
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        owner(beat)
