"""Whether rows may share a request, how many, and which of them are also sent alone: a pure decision.

Joining rows in one request must not change their responses, whatever the model server does, so responses are checked:

- for the first request of each size, every row is also sent alone;
- later a random row of one in a few requests is, then of one in 34 or more: at most 3 % of a long run's requests.

**What a check covers.** A server that reorders responses from some request on also does so in the next check. So a
passed check covers the responses of the same server process before the checked request was sent. Later responses wait
for the next check, and a file is written only when all its rows are covered. A difference ends joining for good, and
every row of every file that is not written yet is sent alone, even if an earlier check covers it.

This makes wrong lines impossible if misbehaviour depends on the size of a request, on the position of a row in it, or
on how much was sent before. If it depends on the contents of a request or on chance, a passed check is only a sample
and means little for the other rows. Therefore everything that can still be taken back is discarded after a difference,
checks are frequent in the first requests, where a small run ends, and :mod:`tasks.domain.evidence` examines every
response without additional requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import NamedTuple

STEP = 4
"""Each size that requests may have, down from the wanted one, is this fraction (a fourth) of the next larger one."""
SMALLEST = 4
"""Fewer rows than this are not joined, unless the service asks for it."""
GROWTH = 4
"""Requests between two checks: a fourth of those sent so far, ..."""
GAPS = (34, 40)
"""... but at most this many while rows also sent alone are below their SHARE of all requests, ..."""
LONG_GAPS = (40, 80)
"""... and otherwise at most this many."""
SHARE = 0.027
PROOFS = 4
"""Requests of the first size that are checked row by row if all responses are equal: these cannot show an order."""

ServerId = tuple[int, int]
"""A process of a model server: the number of its instance, and how often that had been started before."""


class Order(NamedTuple):
    """One request: its number of rows, the positions of those also sent alone, and the moment of sending."""

    rows: int
    alone: Sequence[int]
    moment: int


Unproved = dict[ServerId, int]
"""Responses for one file's rows that came in joined requests and are not covered by its own checks: the moment of the
last such response of each server."""


class Joining:
    """Takes in the outcomes of requests and decides on the next ones. ``draw`` is the source of randomness."""

    def __init__(self, draw: Random) -> None:
        self._draw = draw
        self.refused = ""
        """Why rows are no longer joined; empty as long as they are."""
        self._proved: set[int] = set()
        self._trying: set[int] = set()
        self._proofs = 0
        self._clock = 0
        self._covered: dict[ServerId, int] = {}
        self._requests = 0
        self._sent_alone = 0
        self._since = 0
        self._gap = 0
        self.rows = 0
        """Rows answered in joined requests."""

    def order(self, wanted: int, left: int) -> Order | None:
        """The next request, of at most ``wanted`` of the ``left`` rows of a file; without joining, a single row.

        None: wait for the first request of a size, which is in flight.
        """
        if not self.refused and wanted > 1:
            waiting = False
            sizes = rungs(wanted)
            for size in sizes:
                if size > left:
                    continue
                if size in self._proved:
                    return self._checked_at_random(size)
                if size in self._trying:
                    waiting = True
                elif not waiting and (size == sizes[-1] or size * (size // STEP) <= self.rows + left):
                    # Checking this size and then using it costs fewer requests than staying with the size below.
                    self._trying.add(size)
                    self._requests += 1
                    self._sent_alone += size
                    return Order(size, range(size), self._tick())
            if waiting:
                return None
        return Order(1, (), self._tick())

    def _checked_at_random(self, size: int) -> Order:
        self._requests += 1
        self._since += 1
        if self._since < self._gap:
            return Order(size, (), self._tick())
        return self._check(size)

    def _check(self, size: int) -> Order:
        self._sent_alone += 1
        self._since = 0
        longest = self._draw.randint(*(GAPS if self._sent_alone < SHARE * self._requests else LONG_GAPS))
        self._gap = min(1 + self._requests // GROWTH, longest)
        return Order(size, (self._draw.randrange(size),), self._tick())

    def last_check(self, rows: int) -> Order:
        """A request that is repeated because no later one could cover the last responses."""
        self._requests += 1
        return self._check(rows)

    def _tick(self) -> int:
        self._clock += 1
        return self._clock

    def answered(self, order: Order) -> int:
        """Count a joined request that got as many responses as rows; the moment."""
        self.rows += order.rows
        return self._tick()

    def not_answered(self, order: Order) -> None:
        """The request was not answered, or could not be checked: its size is still unproved."""
        self._trying.discard(order.rows)

    def matched(self, order: Order, server: ServerId, different: int) -> bool:
        """Every row sent alone got its joined response, ``different`` distinct ones; whether that proves anything."""
        if order.rows in self._trying:
            self._trying.discard(order.rows)
            self._proofs += 1
            if different < 2 and not self._proved and self._proofs < PROOFS:
                return False
            self._proved.add(order.rows)
        self._covered[server] = max(order.moment, self._covered.get(server, 0))
        return True

    def refuse(self, why: str) -> None:
        """End joining: a row's joined response was not its own."""
        self.refused = self.refused or why

    def covers(self, unproved: Unproved) -> bool:
        """Whether later checks cover all responses of a file."""
        return not self.refused and all(moment < self._covered.get(server, 0) for server, moment in unproved.items())


def rungs(wanted: int) -> list[int]:
    """The sizes that requests of at most ``wanted`` rows may have, largest first: few, because each is checked."""
    sizes = [wanted]
    while sizes[-1] // STEP >= SMALLEST:
        sizes.append(sizes[-1] // STEP)
    return sizes
