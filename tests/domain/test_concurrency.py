"""The limit of requests in flight, against simulated servers: no clock, no network."""

from __future__ import annotations

import heapq
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.domain.concurrency import LARGEST, PROBE_WINDOWS, START, WINDOW_SECONDS, AdaptiveLimit


class Server:
    """Works on ``parallelism`` requests at once, ``seconds`` each; the others wait. Refuses what is above ``most``."""

    def __init__(self, parallelism: int, seconds: float = 0.02, most: int | None = None) -> None:
        self.parallelism, self.seconds, self.most = parallelism, seconds, most
        self.answers = self.refusals = 0

    def drive(self, limit: AdaptiveLimit, duration: float, work: int | None = None) -> list[int]:
        """Keep the server as busy as the limit allows (at most ``work`` requests at once); the limits over time."""
        draw = random.Random(3)
        events: list[tuple[float, bool]] = []
        free = [0.0] * self.parallelism
        seen: list[int] = []
        now, in_flight = 0.0, 0
        while now < duration:
            while in_flight < min(limit.limit, work or LARGEST * 8):
                in_flight += 1
                if self.most is not None and in_flight > self.most:
                    heapq.heappush(events, (now + 0.001, False))
                    continue
                start = max(now, heapq.heappop(free))
                end = start + self.seconds * draw.uniform(0.97, 1.03)
                heapq.heappush(free, end)
                heapq.heappush(events, (end, True))
            now, answered = heapq.heappop(events)
            if answered:
                self.answers += 1
                limit.answered(now, in_flight)
            else:
                self.refusals += 1
                limit.overloaded(now)
            in_flight -= 1
            assert 1 <= limit.limit <= limit.cap
            seen.append(limit.limit)
        return seen


@pytest.mark.parametrize(("parallelism", "least", "most"), [(1, 2, 16), (8, 8, 20), (64, 48, 128)])
def test_limit__settles_near_what_the_server_can_do_at_once(parallelism: int, least: int, most: int) -> None:
    server = Server(parallelism)
    seen = server.drive(AdaptiveLimit(), 60)
    settled = seen[len(seen) // 3 :]
    assert least <= min(settled)
    assert max(settled) <= most
    assert server.answers >= 0.9 * 60 * parallelism / server.seconds


@pytest.mark.parametrize("parallelism", [1, 8, 64, 500])
@pytest.mark.parametrize("cap", [1, 2, 5, 30, 1024])
def test_limit__never_leaves_1_to_its_cap(parallelism: int, cap: int) -> None:
    seen = Server(parallelism).drive(AdaptiveLimit(cap), 10)
    assert max(seen) <= cap
    assert min(seen) >= 1


def test_limit__starts_at_8_or_its_cap() -> None:
    assert AdaptiveLimit().limit == START
    assert AdaptiveLimit(3).limit == 3
    assert AdaptiveLimit().cap == LARGEST
    assert AdaptiveLimit(5_000).cap == 1024


def test_limit__halves_on_overload_and_never_falls_below_1() -> None:
    limit = AdaptiveLimit()
    found = []
    for window in range(6):
        limit.overloaded(10.0 + window)
        found.append(limit.limit)
    assert found == [4, 2, 1, 1, 1, 1]


def test_limit__a_burst_of_refusals_counts_once() -> None:
    limit = AdaptiveLimit()
    for number in range(50):
        limit.overloaded(10.0 + number * WINDOW_SECONDS / 100)
    assert limit.limit == START // 2
    limit.overloaded(10.0 + WINDOW_SECONDS)
    assert limit.limit == START // 4


def test_limit__an_overloaded_server_is_kept_busy_all_the_same() -> None:
    server = Server(parallelism=16, most=24)
    seen = server.drive(AdaptiveLimit(), 60)
    assert max(seen[len(seen) // 3 :]) <= 40
    assert server.refusals < 0.02 * server.answers
    assert server.answers >= 0.5 * 60 * 16 / server.seconds


def test_limit__finds_back_after_an_overload() -> None:
    limit = AdaptiveLimit()
    server = Server(64)
    server.drive(limit, 20)
    before = limit.limit
    limit.overloaded(1_000.0)
    assert limit.limit == before // 2
    again = AdaptiveLimit()
    again.overloaded(0.0)
    assert again.limit == START // 2
    assert max(server.drive(again, 60)) >= 32


def test_limit__too_little_work_does_not_raise_it() -> None:
    seen = Server(64).drive(AdaptiveLimit(), 20, work=4)
    assert set(seen) == {START}


def test_limit__a_server_that_gets_slower_brings_no_growth() -> None:
    limit = AdaptiveLimit()
    now = 0.0
    for _ in range(2_000):
        now += 0.01 * limit.limit / min(limit.limit, 8)
        limit.answered(now, limit.limit)
    assert limit.limit <= 2 * START


steps = st.lists(st.tuples(st.floats(0, 0.5), st.booleans(), st.integers(0, 300)), max_size=300)


@given(steps, st.integers(1, 64))
def test_limit__whatever_happens_stays_within_1_and_the_cap(happened: list[tuple[float, bool, int]], cap: int) -> None:
    limit = AdaptiveLimit(cap)
    now = 0.0
    for seconds, good, in_flight in happened:
        now += seconds
        if good:
            limit.answered(now, in_flight)
        else:
            limit.overloaded(now)
        assert 1 <= limit.limit <= cap


def test_limit__tries_a_little_more_from_time_to_time() -> None:
    limit = AdaptiveLimit()
    seen = Server(8).drive(limit, 60)
    settled = seen[len(seen) // 3 :]
    assert len(set(settled)) > 1
    assert 60 / WINDOW_SECONDS > 3 * PROBE_WINDOWS
