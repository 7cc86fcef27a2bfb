"""How many requests an instance is given at once, found while running: a pure controller."""

from __future__ import annotations

START = 8
LARGEST = 256
WINDOW_SECONDS = 0.25
GAIN = 1.05
"""Throughput must grow by 5 % for a higher limit to be worth it."""
PROBE_WINDOWS = 20
"""Windows at the found limit before a higher one is tried again."""


class AdaptiveLimit:
    """Additive-increase, multiplicative-decrease limit of requests in flight.

    Starts at 8 and doubles as long as the throughput grows by 5 % at least; then stays one step back and tries a little
    more from time to time. Halves on an overload answer (429, 503, a time-out). ``cap`` is the largest limit.
    """

    def __init__(self, cap: int | None = None) -> None:
        self.cap = min(cap or LARGEST, 1024)
        self.limit = min(START, self.cap)
        self._steady = False
        self._best = 0.0
        self._before = self.limit
        self._windows = 0
        self._started: float | None = None
        self._answers = 0
        self._full = False
        self._overloaded: float | None = None

    def answered(self, now: float, in_flight: int) -> None:
        """Count an answer at time ``now`` (seconds), of ``in_flight`` requests at that moment."""
        if self._started is None:
            self._started = now
        self._answers += 1
        self._full = self._full or in_flight >= self.limit
        elapsed = now - self._started
        if elapsed < WINDOW_SECONDS or self._answers < 2 * self.limit:
            return
        throughput = self._answers / elapsed
        was_full, self._started, self._answers, self._full = self._full, now, 0, False
        if was_full:  # else the work, not the limit, is what bounds the throughput
            self._judge(throughput)

    def _judge(self, throughput: float) -> None:
        if self._steady:
            self._windows += 1
            self._best = 0.7 * self._best + 0.3 * throughput
            if self._windows >= PROBE_WINDOWS:
                self._windows, self._steady, self._before = 0, False, self.limit
                self._step(max(1, self.limit // 10))
            return
        if throughput > self._best * GAIN:
            self._best, self._before = throughput, self.limit
            self._step(self.limit)
        else:
            self.limit, self._steady, self._windows = self._before, True, 0

    def _step(self, by: int) -> None:
        if self.limit >= self.cap:
            self._steady = True
        self.limit = min(self.cap, self.limit + by)

    def overloaded(self, now: float) -> None:
        """The instance said, or showed, that it has too much. Counts once a window."""
        if self._overloaded is not None and now - self._overloaded < WINDOW_SECONDS:
            return  # the same burst: its other requests were on their way already
        self._overloaded = now
        self.limit = max(1, self.limit // 2)
        self._before, self._steady, self._windows, self._best = self.limit, True, 0, 0.0
        self._started, self._answers, self._full = now, 0, False
