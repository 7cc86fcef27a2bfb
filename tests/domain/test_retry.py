"""Whether a failed request is tried again, and when."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.domain.retry import (
    BASE_SECONDS,
    MAX_ATTEMPTS,
    MAX_RETRY_AFTER_SECONDS,
    MAX_SECONDS,
    MAX_TIMEOUTS,
    RETRIED_STATUSES,
    Failure,
    decide,
)

CONNECTION = Failure("connection")
TIMEOUT = Failure("timeout")


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_retry__a_status_that_may_pass_is_tried_again(status: int) -> None:
    assert decide(Failure("status", status), 1).again


@pytest.mark.parametrize("status", [None, 400, 401, 403, 404, 405, 409, 413, 415, 422, 501, 505, 507, 301])
def test_retry__a_status_that_stays_is_final(status: int | None) -> None:
    decision = decide(Failure("status", status), 1)
    assert not decision.again
    assert decision.delay_seconds == 0


@pytest.mark.parametrize(
    ("failure", "attempt", "again"),
    [
        (CONNECTION, 1, True), (CONNECTION, MAX_ATTEMPTS - 1, True), (CONNECTION, MAX_ATTEMPTS, False),
        (CONNECTION, MAX_ATTEMPTS + 1, False),
        (TIMEOUT, 1, True), (TIMEOUT, MAX_TIMEOUTS, False), (TIMEOUT, MAX_TIMEOUTS + 3, False),
        (Failure("status", 503), MAX_ATTEMPTS - 1, True), (Failure("status", 503), MAX_ATTEMPTS, False),
        (Failure("status", 404), MAX_ATTEMPTS, False),
    ],
)  # fmt: skip
def test_retry__ends_after_its_attempts(failure: Failure, attempt: int, again: bool) -> None:
    assert decide(failure, attempt).again is again


@pytest.mark.parametrize(("attempt", "seconds"), [(1, 0.2), (2, 0.4), (3, 0.8), (4, 1.6), (5, 3.2)])
def test_retry__the_delay_doubles_and_lies_between_half_and_the_whole(attempt: int, seconds: float) -> None:
    assert decide(CONNECTION, attempt, jitter=1.0).delay_seconds == pytest.approx(seconds)
    assert decide(CONNECTION, attempt, jitter=0.5).delay_seconds == pytest.approx(0.75 * seconds)
    assert decide(CONNECTION, attempt, jitter=0.0).delay_seconds == pytest.approx(0.5 * seconds)


@pytest.mark.parametrize(
    ("asked", "again"),
    [(0.0, True), (1.5, True), (MAX_RETRY_AFTER_SECONDS, True), (MAX_RETRY_AFTER_SECONDS + 0.1, False), (1e9, False),
     (float("inf"), False)],
)  # fmt: skip
@pytest.mark.parametrize("jitter", [0.0, 1.0])
def test_retry__never_comes_back_earlier_than_the_server_asked(asked: float, again: bool, jitter: float) -> None:
    decision = decide(Failure("status", 503, asked), 1, jitter=jitter)
    assert decision.again is again
    if again:
        assert asked <= decision.delay_seconds <= asked + 0.05


def test_retry__a_time_to_come_back_that_is_past_is_now() -> None:
    assert 0 <= decide(Failure("status", 429, -5.0), 1).delay_seconds <= 0.05


def test_retry__being_asked_to_come_back_gives_no_more_attempts() -> None:
    assert not decide(Failure("status", 503, 0.0), MAX_ATTEMPTS).again
    assert not decide(Failure("status", 404, 0.0), 1).again


failures = st.one_of(
    st.builds(Failure, st.sampled_from(["connection", "timeout"])),
    st.builds(Failure, st.just("status"), st.integers(100, 599), st.none() | st.floats(-10, 1000)),
)


@given(failures, st.integers(1, 2000), st.floats(0, 1))
def test_retry__every_decision_is_within_its_bounds(failure: Failure, attempt: int, jitter: float) -> None:
    decision = decide(failure, attempt, jitter=jitter)
    assert decision == decide(failure, attempt, jitter=jitter)
    if not decision.again:
        assert decision.delay_seconds == 0
        return
    assert attempt < MAX_ATTEMPTS
    assert failure.kind != "status" or failure.status in RETRIED_STATUSES
    if failure.retry_after_seconds is None:
        assert BASE_SECONDS / 2 <= decision.delay_seconds <= MAX_SECONDS
    else:
        assert max(0, failure.retry_after_seconds) <= decision.delay_seconds <= MAX_RETRY_AFTER_SECONDS + 0.05


@pytest.mark.parametrize("status", [500, None])
def test_retry__of_what_the_package_itself_explains_is_of_no_use(status: int | None) -> None:
    assert not decide(Failure("status", status, explained=True), 1).again
