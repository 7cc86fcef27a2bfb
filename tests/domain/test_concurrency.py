"""The limit of requests in flight, against simulated servers: no clock, no network."""

from __future__ import annotations

import pytest
from domain.simulated_server import Draw, Fixed, SimulatedServer, exponential, two_kinds, within
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.domain.concurrency import LARGEST, START, AdaptiveLimit


@pytest.mark.parametrize("spread", [0.0, 0.03, 0.2])
@pytest.mark.parametrize("seconds", [0.02, 0.05, 0.5, 5.0])
@pytest.mark.parametrize("parallelism", [1, 2, 8, 64])
def test_limit__settles_near_what_the_server_can_do_at_once(parallelism: int, seconds: float, spread: float) -> None:
    server = SimulatedServer(parallelism, seconds, draw=within(spread))
    end = 400 * max(seconds, 0.05)
    server.drive(AdaptiveLimit(), end)
    most = parallelism / seconds
    settled = 0.4 * end
    assert server.rate(settled, end) >= 0.97 * most
    assert min(server.rates(settled, end, max(1.0, 10 * seconds))) >= 0.8 * most
    assert parallelism <= server.mean_limit(settled, end) <= 1.6 * parallelism + 3
    assert server.max_in_flight <= max(START, 4 * parallelism)


def test_limit__finds_a_server_of_500_within_its_cap() -> None:
    server = SimulatedServer(500).drive(AdaptiveLimit(1024), 8)
    assert server.rate(2, 8) >= 0.97 * 10_000
    assert SimulatedServer(500).drive(AdaptiveLimit(), 2).max_in_flight == LARGEST


@pytest.mark.parametrize("seed", range(5))
def test_limit__3000_items_at_8_at_once_take_little_longer_than_the_server_needs(seed: int) -> None:
    server = SimulatedServer(8, seed=seed).drive(AdaptiveLimit(), items=3_000)
    assert 3_000 / server.now >= 0.97 * 8 / 0.05


@pytest.mark.parametrize("seed", range(5))
def test_limit__is_near_64_at_once_within_a_second(seed: int) -> None:
    server = SimulatedServer(64, seed=seed).drive(AdaptiveLimit(), 3)
    assert server.rate(1, 2) >= 0.9 * 64 / 0.05
    assert server.rate(2, 3) >= 0.95 * 64 / 0.05


def test_limit__does_not_flood_a_model_that_takes_20_seconds_for_each_request() -> None:
    server = SimulatedServer(1, 20.0).drive(AdaptiveLimit(), 2_000)
    assert server.max_in_flight == START
    assert server.mean_limit(200, 2_000) <= 3
    assert server.rate(0, 2_000) >= 0.97 / 20


@pytest.mark.parametrize(("parallelism", "seconds"), [(1, 0.000_05), (1, 0.000_5), (8, 0.001)])
def test_limit__hides_the_way_to_a_fast_server(parallelism: int, seconds: float) -> None:
    server = SimulatedServer(parallelism, seconds, way=0.001).drive(AdaptiveLimit(), 3)
    at_once = parallelism * (1 + 0.001 / seconds)
    assert server.rate(1, 3) >= 0.95 * parallelism / seconds
    assert server.mean_limit(1, 3) <= 2 * at_once + 3


def share_of_possible(parallelism: int, draw: Draw, seed: int, start: float, end: float) -> float:
    """The rate in this time, by that under a limit that is always enough."""
    ran = SimulatedServer(parallelism, draw=draw, seed=seed).drive(AdaptiveLimit(), end)
    possible = SimulatedServer(parallelism, draw=draw, seed=seed).drive(Fixed(2 * parallelism + 2), end)
    return ran.rate(start, end) / possible.rate(start, end)


@pytest.mark.parametrize("draw", [exponential, two_kinds])
@pytest.mark.parametrize("parallelism", [1, 8, 64])
def test_limit__holds_among_very_different_requests(parallelism: int, draw: Draw) -> None:
    shares = [share_of_possible(parallelism, draw, seed, 10, 20) for seed in range(5)]
    assert sorted(shares)[2] >= 0.9
    assert min(shares) >= 0.7


@pytest.mark.parametrize("parallelism", [1, 8, 64])
def test_limit__pauses_of_the_server_do_not_make_it_collapse(parallelism: int) -> None:
    pauses = [(1.7 * number, 0.4) for number in range(1, 17)]
    ran = SimulatedServer(parallelism, pauses=pauses).drive(AdaptiveLimit(), 28)
    possible = SimulatedServer(parallelism, pauses=pauses).drive(Fixed(2 * parallelism + 2), 28)
    assert ran.rate(2, 28) >= 0.95 * possible.rate(2, 28)


@pytest.mark.parametrize(
    ("parallelism", "seconds"), [(64, 0.05), (1, 0.05), (16, 0.05), (8, 0.2), (8, 0.0125), (64, 0.2)]
)
@pytest.mark.parametrize("seed", range(3))
def test_limit__follows_a_server_that_changes(parallelism: int, seconds: float, seed: int) -> None:
    changes = [(10.0, parallelism, seconds), (30.0, 8, 0.05)]
    server = SimulatedServer(8, draw=within(0.1), changes=changes, seed=seed).drive(AdaptiveLimit(), 50)
    most = parallelism / seconds
    assert server.rate(14, 30) >= 0.9 * most
    assert server.rate(34, 50) >= 0.93 * 160
    assert parallelism <= server.mean_limit(20, 30) <= 2 * parallelism + 4
    assert 8 <= server.mean_limit(40, 50) <= 20


@pytest.mark.parametrize(("parallelism", "most"), [(16, 16), (16, 24), (64, 80)])
def test_limit__stays_below_what_a_server_refuses(parallelism: int, most: int) -> None:
    server = SimulatedServer(parallelism, most=most).drive(AdaptiveLimit(), 60)
    assert server.rate(5, 60) >= 0.93 * parallelism / 0.05
    assert server.refusals < 0.01 * len(server.answers)


def test_limit__a_server_that_refuses_before_it_is_busy_gets_what_it_takes() -> None:
    server = SimulatedServer(16, most=8).drive(AdaptiveLimit(), 60)
    assert server.rate(5, 60) >= 0.9 * 8 / 0.05
    assert server.refusals < 0.05 * len(server.answers)


@pytest.mark.parametrize("parallelism", [8, 64])
def test_limit__one_refusal_among_a_thousand_answers_costs_little(parallelism: int) -> None:
    server = SimulatedServer(parallelism, flaky=0.001).drive(AdaptiveLimit(), 30)
    assert server.rate(2, 30) >= 0.95 * parallelism / 0.05


@pytest.mark.parametrize(("parallelism", "flaky", "least"), [(8, 0.02, 0.8), (8, 0.05, 0.8), (64, 0.02, 0.75)])
def test_limit__is_kept_at_a_server_that_refuses_as_much_under_any_limit(
    parallelism: int, flaky: float, least: float
) -> None:
    shares = []
    for seed in range(5):
        server = SimulatedServer(parallelism, flaky=flaky, seed=seed).drive(AdaptiveLimit(), 40)
        shares.append(server.rate(20, 40) / (parallelism / 0.05))
    assert sorted(shares)[2] >= least


@pytest.mark.parametrize(("parallelism", "a_second"), [(8, 100), (64, 100), (64, 1_000)])
def test_limit__of_a_server_that_takes_so_many_requests_a_second(parallelism: int, a_second: float) -> None:
    server = SimulatedServer(parallelism, a_second=a_second).drive(AdaptiveLimit(), 60)
    assert server.rate(5, 60) >= 0.9 * a_second
    assert server.refusals < 0.1 * len(server.answers)


@pytest.mark.parametrize(("parallelism", "least"), [(1, 0.95), (8, 0.75), (64, 0.35)])
def test_limit__starts_fast_among_very_different_requests(parallelism: int, least: float) -> None:
    shares = [share_of_possible(parallelism, exponential, seed, 0, 1) for seed in range(30)]
    assert sum(shares) / len(shares) >= least


@pytest.mark.parametrize("parallelism", [1, 8, 64, 500])
@pytest.mark.parametrize("cap", [1, 2, 5, 30, 1024])
def test_limit__never_leaves_1_to_its_cap(parallelism: int, cap: int) -> None:
    server = SimulatedServer(parallelism).drive(AdaptiveLimit(cap), 5)
    assert server.max_in_flight <= cap
    assert min(limit for _, limit in server.limits) >= 1
    assert server.rate(2, 5) >= 0.9 * min(cap, parallelism) / (0.05 + 0.0005)


def test_limit__starts_at_4_or_its_cap() -> None:
    assert AdaptiveLimit().limit == START == 4
    assert AdaptiveLimit(3).limit == 3
    assert AdaptiveLimit().cap == LARGEST
    assert AdaptiveLimit(5_000).cap == 1024


def test_limit__falls_on_overload_and_never_below_1() -> None:
    limit = AdaptiveLimit()
    found = []
    for second in range(6):
        limit.overloaded(10.0 + second, 10.5 + second)
        found.append(limit.limit)
    assert found == [2, 1, 1, 1, 1, 1]


def test_limit__a_burst_of_refusals_counts_once() -> None:
    limit = AdaptiveLimit()
    for number in range(50):
        limit.overloaded(10.0 + number / 1000, 11.0 + number / 1000)
    assert limit.limit == START // 2
    limit.overloaded(11.5, 12.0)
    assert limit.limit < START // 2


@pytest.mark.parametrize("work", [1, 3, 20])
def test_limit__too_little_work_says_nothing(work: int) -> None:
    server = SimulatedServer(64).drive(AdaptiveLimit(), 20, work=work)
    assert max(limit for _, limit in server.limits) <= max(START, 2 * work)


def test_limit__work_that_comes_back_finds_the_limit_as_it_was() -> None:
    limit = AdaptiveLimit()
    server = SimulatedServer(64)
    server.drive(limit, 10)
    found = limit.limit
    server.drive(limit, 20, work=2)
    assert 0.7 * found <= limit.limit <= 1.2 * found
    server.drive(limit, 25)
    assert server.rate(21, 25) >= 0.95 * 64 / 0.05


def test_limit__tells_throughput_and_latency() -> None:
    limit = AdaptiveLimit()
    assert (limit.throughput, limit.latency) == (0.0, 0.0)
    SimulatedServer(8).drive(limit, 10)
    assert limit.throughput == pytest.approx(160, rel=0.15)
    assert limit.latency == pytest.approx(0.06, rel=0.4)


def test_limit__does_the_same_for_the_same_answers() -> None:
    first, second = (SimulatedServer(8, draw=exponential).drive(AdaptiveLimit(), 10) for _ in range(2))
    assert first.limits == second.limits


steps = st.lists(
    st.tuples(st.floats(0, 0.5), st.floats(0, 2), st.booleans(), st.integers(0, 1100)), max_size=400
)  # fmt: skip


@given(steps, st.integers(1, 1024))
def test_limit__whatever_happens_stays_within_1_and_the_cap(
    happened: list[tuple[float, float, bool, int]], cap: int
) -> None:
    limit = AdaptiveLimit(cap)
    now = 0.0
    for seconds, took, good, in_flight in happened:
        now += seconds
        if good:
            limit.answered(now - took, now, in_flight)
        else:
            limit.overloaded(now - took, now)
        assert 1 <= limit.limit <= cap
        assert limit.throughput >= 0
        assert limit.latency >= 0


@settings(max_examples=30)
@given(st.integers(1, 80), st.sampled_from([0.002, 0.02, 0.2]), st.floats(0, 0.3), st.integers(0, 1_000))
def test_limit__whatever_the_server_is_uses_it(parallelism: int, seconds: float, spread: float, seed: int) -> None:
    end = 200 * max(seconds, 0.02)
    server = SimulatedServer(parallelism, seconds, draw=within(spread), seed=seed).drive(AdaptiveLimit(), end)
    assert server.rate(end / 3, end) >= 0.85 * parallelism / seconds
    assert server.max_in_flight <= max(START, 5 * parallelism + 8)


def test_limit__of_a_server_that_stands_still_twice_takes_late_answers() -> None:
    for latency in (0.05, 0.2, 1.0):
        limit = AdaptiveLimit()
        now = 0.0
        for _ in range(4_000):  # until it holds
            now += latency / 10
            limit.answered(now - latency, now, limit.limit)
        before = now
        for stall in (5.0, 10.0):
            now += stall
            limit.answered(now - latency, now, limit.limit)
            for _ in range(40):  # sent before the server stood still
                now += latency / 10
                limit.answered(before - latency, now, limit.limit)
                assert limit.limit >= 1
