"""Whether rows may share a request, how many, and which of them are sent alone as well: a pure decision.

Several rows in one request must not change an answer, whatever the model server does, so its answers are checked:

- each size of request is new once: then every one of its rows is sent alone as well;
- later a random row of one in a few requests is, then of one in 34 or more: at most 3 % of a long run's requests.

**What a check covers.** A server that puts answers in another order from some request on does so in the next check,
too. So a check that finds nothing covers what was answered before the checked request was sent, by the same server
process; what was answered later waits for the next one, and a file is written only when all its rows are covered. A
difference ends joining for good, and every row of every file that is not written yet is sent alone: also those that an
earlier check covers.

That makes wrong lines impossible where misbehaviour depends on the size of a request, on the place of a row in it, or
on how much was sent before. Where it depends on the contents of a request or on chance, a check that finds nothing is a
sample: it says little about the other rows. Hence nothing that can still be taken back is kept after a difference,
hence checks are frequent in the first requests, where a small run ends, and hence
:mod:`tasks.domain.evidence`, which looks at every answer without a request more.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import NamedTuple

STEP = 4
"""Each size that requests may have, down from the wanted one, is a fourth of the next."""
SMALLEST = 4
"""Fewer rows than that are not joined, unless the service wants it."""
GROWTH = 4
"""From one check to the next are a fourth of the requests until then, ..."""
GAPS = (34, 40)
"""... but not more than that, as long as rows sent alone as well are below their share of all requests ..."""
LONG_GAPS = (40, 80)
"""... and else that."""
SHARE = 0.027
PROOFS = 4
"""Requests of the first size that are checked row by row as long as all answers are the same: whose is whose then?"""

Server = tuple[int, int]
"""A process of a model server: the number of its instance, and how often that was started before."""


class Order(NamedTuple):
    """One request: its rows, the places of those that are sent alone as well, and the moment of sending."""

    rows: int
    alone: Sequence[int]
    moment: int


class Unproved:
    """What of one file's rows was answered in joined requests, and is not covered by its own checks."""

    def __init__(self) -> None:
        self.last: dict[Server, int] = {}
        """The moment of the last such answer of each server."""

    def add(self, server: Server, moment: int) -> None:
        """Count an answer."""
        self.last[server] = moment


class Joining:
    """Fed with what comes of requests; answers with orders. ``draw`` is the source of chance."""

    def __init__(self, draw: Random) -> None:
        self._draw = draw
        self.refused = ""
        """Why rows are not joined any more; empty as long as they are."""
        self._proved: set[int] = set()
        self._trying: set[int] = set()
        self._proofs = 0
        self._clock = 0
        self._covered: dict[Server, int] = {}
        self._requests = 0
        self._sent_alone = 0
        self._since = 0
        self._gap = 0
        self.rows = 0
        """Rows answered in joined requests."""

    def order(self, wanted: int, left: int) -> Order | None:
        """The next request, of at most ``wanted`` of the ``left`` rows of a file; one row is sent alone.

        None: wait for what comes of the first request of a size, which is under way.
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
                    # Checking it, and then sending all in it, costs fewer requests than to stay with the size below.
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
        """A request that is sent once more, because no other comes that could cover what was answered last."""
        self._requests += 1
        return self._check(rows)

    def _tick(self) -> int:
        self._clock += 1
        return self._clock

    def answered(self, order: Order) -> int:
        """A joined request was answered, with as many answers as rows; the moment."""
        self.rows += order.rows
        return self._tick()

    def not_answered(self, order: Order) -> None:
        """It was not, or its check could not be made: nothing is known of its size yet."""
        self._trying.discard(order.rows)

    def matched(self, order: Order, server: Server, different: int) -> bool:
        """All rows sent alone had their joined answers, ``different`` ones; whether that proves anything."""
        if order.rows in self._trying:
            self._trying.discard(order.rows)
            self._proofs += 1
            if different < 2 and not self._proved and self._proofs < PROOFS:
                return False
            self._proved.add(order.rows)
        self._covered[server] = max(order.moment, self._covered.get(server, 0))
        return True

    def refuse(self, why: str) -> None:
        """A row's joined answer was not its own."""
        self.refused = self.refused or why

    def covers(self, unproved: Unproved) -> bool:
        """Whether later checks cover all answers of a file."""
        return not self.refused and all(
            moment < self._covered.get(server, 0) for server, moment in unproved.last.items()
        )


def rungs(wanted: int) -> list[int]:
    """The sizes that requests of at most ``wanted`` rows may have, largest first: few, because each is checked."""
    sizes = [wanted]
    while sizes[-1] // STEP >= SMALLEST:
        sizes.append(sizes[-1] // STEP)
    return sizes
