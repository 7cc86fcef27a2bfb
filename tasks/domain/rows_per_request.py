"""How many rows go into one request with ``rows_per_request: auto``, found while running: a pure controller."""

from __future__ import annotations

FIRST = 16
MOST = 1024
GROWTH = 4
LARGEST_BYTES = 1 << 20
"""A request gets no larger: what it says must fit into what servers usually take."""
LONGEST_SECONDS = 1.0
"""What takes longer already gets no larger: what is lost with a model server, and done again, stays little."""
ENOUGH = 8
"""Answers to requests of a size that tell what a row costs in it."""
GAIN = 1.05
"""A row must cost 5 % less in a larger request for it to be worth it."""
PROBE_ANSWERS = 400
"""Answers at the found size before a larger one is tried again."""


class AutoRows:
    """Grows the rows of a request as long as a row costs less in a larger one.

    What a row costs is the time that the instance takes for it: the time to the answer, divided by the rows and by the
    requests that the instance has at once. So it does not matter whether they wait there or are worked on side by side.
    """

    def __init__(self) -> None:
        self.size = FIRST
        self.most = MOST
        """Rows that no request may have more of."""
        self._answered = 0
        self._before = FIRST
        self._best = float("inf")
        self._settled = False
        self._begin()

    def _begin(self) -> None:
        self._answers = 0
        self._cost = 0.0
        self._seconds = 0.0
        self._bytes = 0

    def answered(self, rows: int, body_bytes: int, seconds: float, in_flight: int) -> None:
        """Count the answer to a request of ``rows`` rows, ``in_flight`` of which the instance had at once."""
        self._answered = max(self._answered, rows)
        if rows != self.size:  # of an earlier size, or the last rows of a file
            if self._best == float("inf") and rows < self.size and seconds > LONGEST_SECONDS:
                self.size = self._before = rows  # the model is slow: it starts smaller
                self._begin()
            return
        self._answers += 1
        self._cost += seconds / (rows * max(1, in_flight))
        self._seconds += seconds
        self._bytes = max(self._bytes, body_bytes)
        if self._answers >= (PROBE_ANSWERS if self._settled else ENOUGH):
            self._judge(self._cost / self._answers, self._seconds / self._answers)

    def _judge(self, cost: float, seconds: float) -> None:
        if self._settled or cost * GAIN < self._best:
            if self._settled and self.size == self.most:  # what was too many may not be any more
                self.most = min(MOST, 2 * self.most)
            self._best = cost
            self._before = self.size
            self._grow(seconds)
        else:
            self.size, self._settled = self._before, True
        self._begin()

    def _grow(self, seconds: float) -> None:
        """A larger size, unless its requests would be too large, or those of this size take long already."""
        factor = GROWTH if seconds * GROWTH <= LONGEST_SECONDS else 2
        larger = min(self.most, self.size * factor)
        self._settled = (
            larger <= self.size or seconds > LONGEST_SECONDS or self._bytes * larger > LARGEST_BYTES * self.size
        )
        if not self._settled:
            self.size = larger

    def too_many(self, rows: int) -> None:
        """A request of so many rows failed, and each of them alone did not: no request has so many any more.

        But for the first time after one of so many was answered: then it may have been a passing fault.
        """
        if rows <= self._answered:
            self._answered = rows - 1
            return
        self.most = max(1, min(self.most, rows // 2))
        if self.size > self.most:
            self.size = self._before = self.most
            self._settled = True
            self._begin()
