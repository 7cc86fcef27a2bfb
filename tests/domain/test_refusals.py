"""Which refusals say that a server has too much."""

from __future__ import annotations

import pytest

from tasks.domain.refusals import COMPARED, Refusals


def test_refusals__one_among_many_answers_is_not_too_many() -> None:
    refusals = Refusals()
    assert [refusals.too_many(8, 100) for _ in range(5)] == [False] * 5


def test_refusals__without_answers_between_them_are_too_many() -> None:
    refusals = Refusals()
    assert refusals.too_many(8, 0)
    assert [refusals.too_many(8, answers) for answers in (1_000, 0, 0, 0)] == [False, False, False, True]


def after(*seen: tuple[int, int]) -> Refusals:
    """After refusals, each with its limit and the answers before it."""
    refusals = Refusals()
    for limit, answers in seen:
        refusals.too_many(limit, answers)
    return refusals


def test_refusals__about_as_frequent_under_much_lower_limits_do_not_depend_on_it() -> None:
    assert after(*[(64, 40)] * 6, *[(20, 50)] * 6).take_for_granted() == 64
    assert after(*[(20, 50), (64, 40)] * 6).take_for_granted() == 64


@pytest.mark.parametrize(
    ("seen", "why"),
    [
        ([(64, 40)] * 6 + [(20, 50)] * 5, "too few"),
        ([(64, 40)] * 6 + [(20, 100)] * 6, "rarer under the lower limit"),
        ([(64, 40)] * 6 + [(50, 40)] * 6, "limits that are nearly the same"),
        ([(64, 4)] * 6 + [(20, 4)] * 6, "so many that it has too much whatever the limit"),
    ],
)
def test_refusals__say_too_much_else(seen: list[tuple[int, int]], why: str) -> None:
    assert after(*seen).take_for_granted() == 0, why


def test_refusals__that_do_not_depend_on_the_limit_are_taken_for_granted() -> None:
    refusals = after(*[(64, 20)] * 6, *[(20, 20)] * 6)
    assert refusals.too_many(20, 0)
    assert refusals.take_for_granted() == 64
    assert [refusals.too_many(64, 20) for _ in range(COMPARED - 1)] == [False] * (COMPARED - 1)
    assert refusals.take_for_granted() == 0
