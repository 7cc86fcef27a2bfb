"""How many rows go into one request with ``rows_per_request: auto``, found while running: a pure controller."""

from __future__ import annotations

FIRST = 16
MOST = 1024
GROWTH = 4
LARGEST_BYTES = 1 << 20
"""Requests do not grow beyond this: servers usually accept bodies of this size."""
LONGEST_SECONDS = 1.0
"""Requests that take longer do not grow: little work is lost, and repeated, when a model server dies."""
ENOUGH = 8
"""Responses to requests of one size that are enough to measure the cost of a row."""
GAIN = 1.05
"""A larger request is worth it if a row costs 5 % less in it."""
PROBE_ANSWERS = 400
"""Responses at the found size before a larger one is tried again."""


class AutoRows:
    """Increases the rows of a request as long as a row costs less in a larger one.

    The cost of a row is the instance's time for it: the response time, divided by the rows and by the requests in
    flight at the instance. So it does not matter whether requests wait there or are processed in parallel.
    """

    def __init__(self) -> None:
        self.size = FIRST
        self.most = MOST
        """The most rows that a request may have."""
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
        """Count the response to a request of ``rows`` rows, with ``in_flight`` requests at the instance."""
        self._answered = max(self._answered, rows)
        if rows != self.size:  # of an earlier size, or the last rows of a file
            if self._best == float("inf") and rows < self.size and seconds > LONGEST_SECONDS:
                self.size = self._before = rows  # the model is slow: start smaller
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
            if self._settled and self.size == self.most:  # the old maximum may no longer be too many
                self.most = min(MOST, 2 * self.most)
            self._best = cost
            self._before = self.size
            self._grow(seconds)
        else:
            self.size, self._settled = self._before, True
        self._begin()

    def _grow(self, seconds: float) -> None:
        """Increase the size, unless requests would become too large, or those of this size already take long."""
        factor = GROWTH if seconds * GROWTH <= LONGEST_SECONDS else 2
        larger = min(self.most, self.size * factor)
        self._settled = (
            larger <= self.size or seconds > LONGEST_SECONDS or self._bytes * larger > LARGEST_BYTES * self.size
        )
        if not self._settled:
            self.size = larger

    def too_many(self, rows: int) -> None:
        """A request of ``rows`` rows failed, and each of them alone did not: later requests have fewer.

        The first time after a request of that many rows was answered is ignored: the fault may have been temporary.
        """
        if rows <= self._answered:
            self._answered = rows - 1
            return
        self.most = max(1, min(self.most, rows // 2))
        if self.size > self.most:
            self.size = self._before = self.most
            self._settled = True
            self._begin()
