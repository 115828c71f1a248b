"""Admission: which minibatch may be sampled next, and which numbers its children have.

Numbers are places in the run, from 0: what a depth schedule, a control arm and the budget count.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import count

from nas_cluster.cluster.messages import Admission
from nas_cluster.config import JobConfig
from nas_cluster.storage.journal import Journal

__all__ = ["Admissions", "make_admissions"]


class Admissions(ABC):
    """over: whether the search is over or stopping, `max_children` apart, which is counted here."""

    def __init__(self, config: JobConfig, journal: Journal, over: Callable[[], bool]) -> None:
        self._topology = config.topology
        self._most = config.budget.max_children
        self._journal = journal
        self._over = over
        self.reload()

    @abstractmethod
    def reload(self) -> None:
        """Go on from what the journal holds."""

    @abstractmethod
    def admit(self, replica: int, update: int) -> Admission | None:
        """Leave to sample this minibatch; None when the search is over."""

    @abstractmethod
    def place(self, admission: Admission, update: int) -> int:
        """After how many updates of the controller this minibatch comes, were all admitted ones applied in turn."""

    @abstractmethod
    def learns_from(self, update: int) -> bool:
        """Whether the rewards of this minibatch may reach the controller."""


class Rounds(Admissions):
    """Synchronous: numbers follow from the round, and a round is open to all replicas or to none."""

    def reload(self) -> None:
        """A round that was begun before a crash is open again, whatever budget was used up in it."""
        self._open: dict[int, bool] = {}
        self._last_begun = self._journal.last_update()

    def admit(self, replica: int, update: int) -> Admission | None:
        """A replica's share of round `update`."""
        if not self._open.setdefault(update, update <= self._last_begun or not self._over()):
            return None
        minibatch = self._topology.children_per_replica
        first = (update * self._topology.controller_replicas + replica) * minibatch
        allowed = minibatch if self._most is None else min(minibatch, self._most - first)
        return Admission(first, allowed) if allowed > 0 else None

    def place(self, admission: Admission, update: int) -> int:
        """One update a round."""
        return update

    def learns_from(self, update: int) -> bool:
        """A round that the budget cut off is recorded and not learned from: some replicas have no part in it."""
        per_round = self._topology.controller_replicas * self._topology.children_per_replica
        return self._most is None or (update + 1) * per_round <= self._most


class Minibatches(Admissions):
    """Asynchronous: each minibatch takes the next numbers; what a crash left unused is filled when long enough."""

    def reload(self) -> None:
        """Numbers of planned children are taken."""
        self._admitted = self._journal.counts()["planned"]
        self._used = self._journal.used_numbers()
        self._first_free = next(number for number in count() if number not in self._used)

    def admit(self, replica: int, update: int) -> Admission | None:
        """The next minibatch, or one that was planned before a crash again."""
        recorded = self._journal.batch_children(replica, update)
        if recorded:
            return Admission(recorded[0].child.number, len(recorded))
        if replica >= self._topology.controller_replicas or self._over():
            return None
        wanted = self._topology.children_per_replica
        allowed = wanted if self._most is None else min(wanted, self._most - self._admitted)
        if allowed <= 0:
            return None
        self._admitted += allowed
        return Admission(self._take(allowed), allowed)

    def _take(self, wanted: int) -> int:
        """The first of so many unused numbers in a row."""
        first = self._first_free
        while not self._used.isdisjoint(range(first, first + wanted)):
            first += 1
        self._used.update(range(first, first + wanted))
        while self._first_free in self._used:
            self._first_free += 1
        return first

    def place(self, admission: Admission, update: int) -> int:
        """`accumulate` minibatches an update."""
        return admission.first_number // (self._topology.children_per_replica * self._topology.accumulate)

    def learns_from(self, update: int) -> bool:
        """Always."""
        return True


def make_admissions(config: JobConfig, journal: Journal, over: Callable[[], bool]) -> Admissions:
    """The kind that the job's mode asks for."""
    return (Rounds if config.mode == "synchronous" else Minibatches)(config, journal, over)
