"""A model server on paper: a queue and a number of workers, driven as fast as a limit allows. No clock, no network."""

from __future__ import annotations

import heapq
import random
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

Draw = Callable[[random.Random], float]
What = Literal["arrived", "answered", "refused"]


class Limit(Protocol):
    """What is driven: AdaptiveLimit, or a limit that stays as it is."""

    limit: int

    def answered(self, started: float, now: float, in_flight: int) -> None: ...
    def overloaded(self, started: float, now: float) -> None: ...


class Fixed:
    """A limit that stays."""

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def answered(self, started: float, now: float, in_flight: int) -> None:
        pass

    def overloaded(self, started: float, now: float) -> None:
        pass


def within(spread: float) -> Draw:
    """Service times that differ from their mean by up to this share."""
    return lambda draw: draw.uniform(1 - spread, 1 + spread)


ALIKE = within(0.03)


def exponential(draw: random.Random) -> float:
    """Service times of a Poisson process."""
    return draw.expovariate(1)


def two_kinds(draw: random.Random) -> float:
    """One request of ten takes eleven times as long as the others."""
    return 5.5 if draw.random() < 0.1 else 0.5


class SimulatedServer:
    """Works on ``parallelism`` requests at once, ``seconds`` each; the others wait in order.

    What would be more than ``most`` in flight is refused, and so is what would be more than ``a_second`` requests a
    second, a tenth of a second's kept for later ones. ``way`` is how long a request is under way besides.
    ``changes`` are moments, each with a new parallelism and new seconds; ``pauses`` moments and how long all stands
    still then. ``flaky`` is the share of answers that are refusals for no reason.
    """

    def __init__(
        self, parallelism: int, seconds: float = 0.05, *, draw: Draw = ALIKE, way: float = 0.0005,
        most: int | None = None, changes: Sequence[tuple[float, int, float]] = (),
        pauses: Sequence[tuple[float, float]] = (), flaky: float = 0.0, a_second: float | None = None, seed: int = 3,
    ) -> None:  # fmt: skip
        self.parallelism, self.seconds, self._draw, self._way = parallelism, seconds, draw, way
        self._most, self._changes, self._pauses, self._flaky = most, deque(changes), deque(pauses), flaky
        self._a_second, self._allowed, self._allowed_at = a_second, 0.0, 0.0
        self._random = random.Random(seed)
        self._queue: deque[float] = deque()
        self._events: list[tuple[float, int, What, float]] = []
        self._number = self._busy = 0
        self._paused_until = 0.0
        self.now = 0.0
        self.answers: list[float] = []
        self.limits: list[tuple[float, int]] = []
        self.refusals = self.max_in_flight = 0

    def drive(self, limit: Limit, seconds: float = 1e9, *, items: int = 10**9, work: int = 10**9) -> SimulatedServer:
        """Keep the server as busy as the limit allows, with at most ``work`` requests in flight."""
        in_flight, left = 0, items
        while self.now < seconds and len(self.answers) < items:
            while in_flight < min(limit.limit, work) and left:
                in_flight += 1
                left -= 1
                self.max_in_flight = max(self.max_in_flight, in_flight)
                refused = (self._most is not None and in_flight > self._most) or not self._is_allowed()
                self._later(0.001 if refused else self._way, "refused" if refused else "arrived", self.now)
            self.now, _, what, started = heapq.heappop(self._events)
            self._changing()
            if what == "arrived":
                self._queue.append(started)
                self._begin()
                continue
            if what == "answered":
                self._busy -= 1
                self._begin()
            if what == "refused" or self._random.random() < self._flaky:
                self.refusals += 1
                left += 1
                limit.overloaded(started, self.now)
            else:
                self.answers.append(self.now)
                limit.answered(started, self.now, in_flight)
            in_flight -= 1
            if not self.limits or self.limits[-1][1] != limit.limit:
                self.limits.append((self.now, limit.limit))
        return self

    def _is_allowed(self) -> bool:
        if self._a_second is None:
            return True
        passed, self._allowed_at = self.now - self._allowed_at, self.now
        self._allowed = min(self._a_second / 10, self._allowed + passed * self._a_second)
        if self._allowed < 1:
            return False
        self._allowed -= 1
        return True

    def _later(self, seconds: float, what: What, started: float) -> None:
        self._number += 1
        heapq.heappush(self._events, (self.now + seconds, self._number, what, started))

    def _begin(self) -> None:
        while self._queue and self._busy < self.parallelism:
            self._busy += 1
            wait = max(0.0, self._paused_until - self.now)
            self._later(wait + self.seconds * self._draw(self._random), "answered", self._queue.popleft())

    def _changing(self) -> None:
        while self._changes and self._changes[0][0] <= self.now:
            _, self.parallelism, self.seconds = self._changes.popleft()
        while self._pauses and self._pauses[0][0] <= self.now:
            _, pause = self._pauses.popleft()
            self._paused_until = self.now + pause
            self._events = [(at + pause, *rest) for at, *rest in self._events]  # type: ignore[misc]
            heapq.heapify(self._events)

    def rate(self, start: float, end: float) -> float:
        """Answers a second in that time."""
        return (bisect_left(self.answers, end) - bisect_left(self.answers, start)) / (end - start)

    def rates(self, start: float, end: float, window: float) -> list[float]:
        """Answers a second in a window that slides over that time."""
        steps = int((end - start - window) / window * 4)
        return [self.rate(at, at + window) for at in (start + step * window / 4 for step in range(steps + 1))]

    def mean_limit(self, start: float, end: float) -> float:
        """The limit in that time, on average."""
        ends = [at for at, _ in self.limits[1:]] + [self.now]
        parts = ((limit, min(end, to) - max(start, at)) for (at, limit), to in zip(self.limits, ends, strict=True))
        return sum(limit * seconds for limit, seconds in parts if seconds > 0) / (end - start)
