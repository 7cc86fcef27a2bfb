"""Whether a model server is down, and which of its refusals are a request's own fault."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.domain.outage import (
    DOWN_SECONDS,
    LONG_REST_SECONDS,
    LOOKS_SECONDS,
    PAUSES_SECONDS,
    QUIET_SECONDS,
    UNPROVED_PAUSE_SECONDS,
    Outage,
    Tries,
    elsewhere,
    is_refusal,
)
from tasks.domain.retry import MAX_ATTEMPTS, Failure

MINUTES = 900.0
BUSY = Failure("status", 503)
REFUSED = Failure("refused")
BROKEN = Failure("connection")
LATE = Failure("timeout")


def refuse(outage: Outage, tries: Tries, now: float, failure: Failure = BUSY, *, seconds: float = 0.0) -> int:
    """A request that was sent ``seconds`` before it is refused."""
    return outage.refused(tries, failure, "HTTP 503", now - seconds, now)


def down(*, limit: float = MINUTES) -> tuple[Outage, Tries, Tries]:
    """A server that has refused two requests for a second, and these requests."""
    outage, one, other = Outage(limit), Tries(), Tries()
    refuse(outage, one, 10.0)
    refuse(outage, other, 10.0 + DOWN_SECONDS)
    assert outage.down
    return outage, one, other


@pytest.mark.parametrize(
    ("failure", "refusal"),
    [
        (REFUSED, True), (BROKEN, True), (LATE, True), (Failure("unusable"), False),
        *((Failure("status", status), True) for status in (429, 502, 503, 504)),
        *((Failure("status", status), False) for status in (400, 401, 403, 404, 408, 500, 501)),
    ],
)  # fmt: skip
def test_refusal__is_what_a_server_says_that_is_away_or_has_too_much(failure: Failure, refusal: bool) -> None:
    assert is_refusal(failure) is refusal


def test_outage__counts_a_refusal_while_others_are_answered() -> None:
    outage, tries = Outage(MINUTES), Tries()
    for attempt in range(1, MAX_ATTEMPTS + 1):
        outage.answered(attempt + 0.5)
        assert refuse(outage, tries, attempt + 1.0, seconds=1.0) == attempt
    assert not outage.down


def test_outage__counts_a_refusal_once_others_are_answered_after_it() -> None:
    outage, tries = Outage(MINUTES), Tries()
    for attempt in range(1, MAX_ATTEMPTS + 1):
        counted = refuse(outage, tries, float(attempt))
        assert counted == (0 if attempt == 1 else attempt)  # the first one may be the beginning of an outage
        outage.answered(attempt + 0.5)
    assert not outage.down


def test_outage__of_a_server_that_refuses_everything_costs_no_try() -> None:
    outage, one, other = down()
    outage.asked(healthy=True)
    for second in range(20, 600, 10):
        assert refuse(outage, one, float(second)) == 0
        assert refuse(outage, other, second + 1.0) == 0
    outage.answered(601.0)
    assert not outage.down and not outage.holds
    assert refuse(outage, one, 602.0) == 0  # and nothing is held against it afterwards
    one.settle()
    assert one.counted == 0


def test_outage__of_a_server_that_is_not_healthy_costs_no_try_of_a_single_request() -> None:
    outage, tries = Outage(MINUTES), Tries()
    refuse(outage, tries, 10.0, REFUSED)
    refuse(outage, tries, 11.0, REFUSED)
    outage.asked(healthy=False, cause="no connection")
    assert outage.down and outage.cause == "no connection"
    assert refuse(outage, tries, 800.0, REFUSED) == 0
    outage.answered(801.0)
    tries.settle()
    assert tries.counted == 0


def test_outage__holds_everything_but_one_request_once_the_server_is_healthy() -> None:
    outage, one, _ = down()
    assert outage.holds and not outage.probe
    outage.asked(healthy=True)
    outage.give_one()
    assert outage.holds and outage.probe
    refuse(outage, one, 30.0)
    assert outage.holds and not outage.probe
    outage.answered(31.0)
    assert not outage.holds


def test_request__that_was_refused_alone_before_is_to_blame_when_only_it_is_left() -> None:
    outage, poison = Outage(MINUTES), Tries()
    refuse(outage, poison, 1.0)
    outage.answered(1.1)
    now = 2.0
    counted = 0
    while counted < MAX_ATTEMPTS:
        counted = refuse(outage, poison, now)
        if outage.down:
            outage.asked(healthy=True)
        now += 1.0
    assert now < 20


def test_requests__several_that_were_refused_alone_before_are_to_blame_when_only_they_are_left() -> None:
    outage, poisons = Outage(MINUTES), [Tries(), Tries(), Tries()]
    for second, poison in enumerate(poisons):
        refuse(outage, poison, second + 0.1)
        outage.answered(second + 0.2)
    counted = [0, 0, 0]
    now = 5.0
    while min(counted) < MAX_ATTEMPTS:
        for place, poison in enumerate(poisons):
            counted[place] = refuse(outage, poison, now)
            now += 0.5
        outage.asked(healthy=True)
    assert now < 20


def test_request__that_is_the_only_one_at_all_waits_as_long_as_may_be() -> None:
    outage, tries = Outage(MINUTES), Tries()
    for now in range(10, int(MINUTES), 10):
        assert refuse(outage, tries, float(now)) == 0
        outage.asked(healthy=True)
    assert not outage.passed(MINUTES) and outage.passed(MINUTES + 10)


def test_outage__that_is_over_before_it_is_known_costs_no_try_if_it_refused_several() -> None:
    outage, one, other = Outage(MINUTES), Tries(), Tries()
    for beginning in range(10, 100, 10):
        refuse(outage, one, beginning + 0.1)
        refuse(outage, other, beginning + 0.5)
        assert not outage.down
        outage.answered(beginning + 0.9)
    one.settle()
    assert one.counted == 0


def test_outage__that_begins_with_a_long_retry_after_is_known_at_once() -> None:
    outage = Outage(MINUTES)
    outage.answered(1.0)
    refuse(outage, Tries(), 10.0, Failure("status", 503, LONG_REST_SECONDS - 1))
    assert not outage.down
    refuse(outage, Tries(), 10.1, Failure("status", 503, LONG_REST_SECONDS))
    assert outage.down and outage.resume_at == 10.1 + LONG_REST_SECONDS


def test_requests__are_to_blame_if_one_that_was_answered_before_is_answered_again() -> None:
    outage, poisons = Outage(MINUTES), [Tries(), Tries()]
    outage.answered(1.0)
    for now in (2.0, 3.0):
        for poison in poisons:
            assert refuse(outage, poison, now) == 0
    assert outage.down
    outage.asked(healthy=True)
    outage.answered_again(3.5)
    assert [refuse(outage, poison, 4.0 + place / 10) for place, poison in enumerate(poisons)] == [2, 1]
    outage.answered_again(6.0)
    assert [poison.settle() or poison.counted for poison in poisons] == [2, 2]


def test_outage__in_which_a_request_is_refused_that_was_answered_before_costs_no_try() -> None:
    outage, tries = Outage(MINUTES), Tries()
    outage.answered(1.0)
    refuse(outage, tries, 2.0)
    refuse(outage, tries, 3.0)
    outage.asked(healthy=True)
    outage.refused_again(Failure("status", 503, 7.0), "HTTP 503", 3.5)
    assert outage.resume_at == 10.5
    outage.answered(90.0)
    tries.settle()
    assert tries.counted == 0


def test_request__without_an_answer_in_time_is_to_blame_when_the_server_is_healthy() -> None:
    outage, tries = Outage(MINUTES), Tries()
    assert refuse(outage, tries, 60.0, LATE, seconds=60.0) == 0
    assert outage.down  # nothing was answered for a minute
    outage.asked(healthy=True)
    assert refuse(outage, tries, 120.0, LATE, seconds=60.0) == 2


def test_request__without_an_answer_in_time_is_not_to_blame_when_the_server_is_away() -> None:
    outage, tries = Outage(MINUTES), Tries()
    refuse(outage, tries, 60.0, LATE, seconds=60.0)
    outage.asked(healthy=False)
    assert refuse(outage, tries, 120.0, LATE, seconds=60.0) == 0


def test_request__whose_connection_breaks_before_each_outage_is_known() -> None:
    outage, killer = Outage(MINUTES), Tries()
    for beginning in (100.0, 200.0, 300.0):
        refuse(outage, killer, beginning, BROKEN)
        refuse(outage, Tries(), beginning + DOWN_SECONDS, REFUSED)
        outage.asked(healthy=False)
        outage.answered(beginning + 50)
    killer.settle()
    assert (killer.breaks, killer.counted) == (3, 0)


def test_request__without_an_answer_in_time_is_not_to_blame_though_others_were_answered_when_it_was_young() -> None:
    outage, tries = Outage(MINUTES), Tries()
    outage.answered(100.1)  # sent together with this one, and then the server hung
    assert refuse(outage, tries, 130.0, LATE, seconds=30.0) == 0
    assert outage.down and outage.lasts(130.0) == pytest.approx(29.9)
    outage.asked(healthy=False)
    outage.answered_again(150.0)
    tries.settle()
    assert (tries.counted, tries.breaks) == (0, 1)


def test_request__without_an_answer_in_time_is_to_blame_while_others_are_answered() -> None:
    outage, tries = Outage(MINUTES), Tries()
    outage.answered(129.0)
    assert refuse(outage, tries, 130.0, LATE, seconds=30.0) == 1
    assert not outage.down


def test_server__that_answers_neither_requests_nor_for_its_health_is_said_to_be_away_and_blames_no_request() -> None:
    outage, tries = Outage(MINUTES), Tries()
    outage.answered(100.0, 1.0)
    assert not outage.is_quiet(100.0, 100.0 + QUIET_SECONDS - 1)
    assert outage.is_quiet(100.0, 100.0 + QUIET_SECONDS)
    outage.asked_while_quiet("no answer within 5 s", 100.0, 120.0)
    assert outage.away and not outage.down and not outage.holds and outage.lasts(120.0) == 20.0
    assert not outage.is_quiet(100.0, 121.0) and outage.is_quiet(100.0, 120.0 + LOOKS_SECONDS)
    assert not outage.passed(100.0 + 2 * MINUTES)  # requests that wait for their answers go on waiting
    assert refuse(outage, tries, 160.0, LATE, seconds=60.0) == 0
    outage.asked(healthy=True)  # it is there again by now
    assert outage.charged(tries) == 0
    outage.answered(170.0)
    tries.settle()
    assert (tries.counted, outage.away) == (0, False)


def test_server__that_is_slow_and_healthy_is_not_away() -> None:
    outage = Outage(MINUTES)
    outage.answered(100.0, 60.0)
    assert not outage.is_quiet(100.0, 219.0) and outage.is_quiet(100.0, 220.0)
    outage.asked_while_quiet("", 100.0, 220.0)
    assert not outage.away
    assert not Outage(0).is_quiet(0.0, 1000.0)


def test_probes__are_counted_while_it_is_open_who_is_to_blame() -> None:
    outage, *_ = down()
    assert outage.probes == 0
    outage.asked(healthy=True)
    for number in range(1, 4):
        outage.give_one()
        assert outage.probes == number
        assert outage.pause(8, 20.0) == UNPROVED_PAUSE_SECONDS
    outage.answered(30.0)
    assert outage.probes == 0
    refuse(outage, Tries(), 40.0)
    refuse(outage, Tries(), 40.0 + DOWN_SECONDS)
    outage.asked(healthy=True)
    outage.give_one()
    assert outage.probes == 0  # it has answered before, and is sent that one again
    other, *_ = down()
    other.asked(healthy=False)
    other.give_one()
    assert other.probes == 0


def test_elsewhere__is_far_from_what_was_tried_before() -> None:
    assert [elsewhere(step, 400) for step in range(1, 8)] == [200, 100, 300, 50, 250, 150, 350]
    assert [elsewhere(step, 1) for step in range(1, 4)] == [0, 0, 0]


def test_tries__at_a_server_that_is_down_are_forgotten_at_another_one() -> None:
    outage, tries, _ = down()
    other = Outage(MINUTES)
    other.answered(12.5)
    assert refuse(other, tries, 13.0, seconds=1.0) == 1
    refuse(other, tries, 14.0)
    assert (tries.pending, outage.down) == (1, True)


def test_outage__without_time_to_wait_blames_each_request_at_once() -> None:
    outage, tries = Outage(0), Tries()
    assert [refuse(outage, tries, float(now), REFUSED) for now in range(1, 7)] == [1, 2, 3, 4, 5, 6]
    assert not outage.down and not outage.holds


def test_retry_after__rests_the_server_and_not_longer_than_may_be_waited() -> None:
    outage = Outage(MINUTES)
    refuse(outage, Tries(), 10.0, Failure("status", 429, 9.0))
    assert outage.holds and outage.resume_at == 19.0
    refuse(outage, Tries(), 10.5, Failure("status", 429, 2.0))
    assert outage.resume_at == 19.0  # never earlier than asked
    outage.answered(12.0)  # by a request that was sent before
    assert outage.holds
    outage.rested(19.0)
    assert not outage.holds
    refuse(outage, Tries(), 20.0, Failure("status", 429, 86_000.0))
    assert outage.resume_at == 20.0 + MINUTES
    outage.rested(20.0 + MINUTES)
    refuse(outage, Tries(), 20.5 + MINUTES, Failure("status", 429, 86_000.0))
    assert outage.resume_at == 20.0 + MINUTES  # it has been waited for: the run ends


def test_retry_after__of_a_request_that_is_refused_again_and_again_rests_only_itself() -> None:
    outage, poison = Outage(MINUTES), Tries()
    for attempt in range(1, 7):
        now = 100.0 * attempt
        outage.answered(now - 0.5)
        refuse(outage, poison, now, Failure("status", 503, 30.0), seconds=1.0)
        assert (outage.resume_at == now + 30) is (attempt <= 3)


def test_outage__passes_its_time_and_is_looked_at_until_then() -> None:
    outage, *_ = down(limit=60.0)
    assert not outage.passed(69.9) and outage.passed(70.0)
    pauses = [outage.pause(looks, 11.0) for looks in range(9)]
    assert pauses == [*PAUSES_SECONDS, PAUSES_SECONDS[-1], PAUSES_SECONDS[-1]]
    assert outage.pause(8, 65.0) == 5.0
    assert outage.pause(8, 70.0) == outage.pause(8, 900.0) == PAUSES_SECONDS[-1]  # while another server answers


@pytest.mark.parametrize(("status", "first"), [(401, 1), (403, 3)])
def test_not_allowed__at_first_ends_the_run(status: int, first: int) -> None:
    outage = Outage(MINUTES)
    assert [outage.not_allowed(status, float(now)) for now in range(first)] == [False] * (first - 1) + [True]


@pytest.mark.parametrize("status", [401, 403])
def test_not_allowed__for_some_items_is_theirs_and_for_all_at_last_ends_the_run(status: int) -> None:
    outage = Outage(MINUTES)
    outage.answered(0.5)
    for now in range(50):
        assert not outage.not_allowed(status, now + 1.0)
        outage.answered(now + 1.5)
    assert [outage.not_allowed(status, now + 60.0) for now in range(20)] == [False] * 19 + [True]


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([BUSY, REFUSED, LATE, None])), max_size=60))
def test_outage__never_blames_a_request_for_more_than_its_tries(events: list[tuple[int, Failure | None]]) -> None:
    outage, requests = Outage(MINUTES), [Tries() for _ in range(4)]
    made = [0, 0, 0, 0]
    for now, (which, failure) in enumerate(events, 1):
        if failure is None:
            outage.answered(float(now))
            assert not outage.down and outage.since is None
        else:
            made[which] += 1
            assert 0 <= refuse(outage, requests[which], float(now), failure) <= made[which]
            assert outage.since is not None
        assert outage.holds or not outage.probe
        if outage.down:
            outage.asked(healthy=bool(now % 2))
            outage.give_one()
