"""What speaks against joined answers without a request more."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tasks.domain.evidence import ENOUGH, FALSE_ALARMS, Evidence, alike, leaves


def row(number: int, text: str = "x") -> str:
    return json.dumps({"id": number, "text": text})


def answer(value: Any) -> bytes:
    return json.dumps({"out": [value]}).encode()


def taught(answers: Any, count: int = ENOUGH) -> Evidence:
    """What single answers to some rows have taught."""
    evidence = Evidence()
    for number in range(100, 100 + count):
        evidence.learn(row(number), answer(answers(number)))
    return evidence


def test_evidence__is_none_where_answers_say_nothing_of_their_rows() -> None:
    evidence = taught(lambda number: {"class": number % 2})
    assert evidence.suspects([row(1), row(2)], [answer({"class": 1}), answer({"class": 5})]) == ()


@pytest.mark.parametrize("named", [lambda n: {"row": n}, lambda n: {"row": str(n), "s": n / 7}, lambda n: n])
def test_evidence__is_a_value_of_the_row_that_its_answer_does_not_have(named: Any) -> None:
    evidence = taught(named)
    rows = [row(number) for number in range(5)]
    assert evidence.suspects(rows, [answer(named(number)) for number in range(5)]) == ()
    assert evidence.suspects(rows, [answer(named(number)) for number in (0, 1, 3, 2, 4)]) == (2,)
    assert evidence.suspects(rows, [answer({"error": "late"}) if n == 4 else answer(named(n)) for n in range(5)]) == (
        4,
    )


def test_evidence__is_not_what_only_happened_to_be_the_same() -> None:
    evidence = taught(lambda number: {"count": number})
    evidence.learn(row(7), answer({"count": 8}))
    assert evidence.suspects([row(1), row(2)], [answer({"count": 2}), answer({"count": 1})]) == ()
    constant = taught(lambda _: {"text": "x"})  # the same in every row: it tells none from another
    assert constant.suspects([row(1)], [answer({"text": "y"})]) == ()


def test_evidence__is_a_known_row_with_another_answer() -> None:
    evidence = taught(lambda number: {"sum": number * 3.0})
    rows = [row(1), row(102)]
    assert evidence.suspects(rows, [answer({"sum": 1.0}), answer({"sum": 306.00001})]) == ()
    assert evidence.suspects(rows, [answer({"sum": 1.0}), answer({"sum": 307.0})]) == (1,)


def test_evidence__is_equal_rows_with_different_answers() -> None:
    rows = [row(1), row(2), row(1)]
    assert Evidence().suspects(rows, [answer(1), answer(2), answer(1)]) == ()
    assert Evidence().suspects(rows, [answer(1), answer(2), answer(3)]) == (0, 2)


def test_evidence__is_not_looked_at_after_many_false_alarms() -> None:
    evidence = taught(lambda number: {"sum": number * 3.0})
    for _ in range(FALSE_ALARMS):
        evidence.false_alarm()
    assert evidence.suspects([row(100)], [answer({"sum": 1.0})]) == ()


@pytest.mark.parametrize("text", ["[" * 100_000 + "]" * 100_000, "1" * 5000, "[" * 900 + "1" + "]" * 900])
def test_evidence__of_what_python_cannot_hold_is_none(text: str) -> None:
    assert len(leaves(text)) <= 1
    assert not alike(text.encode(), b"2")
    assert alike(text.encode(), text.encode())


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (b'{"a":0.1}', b'{"a":0.100001}', True), (b'{"a":0.1}', b'{"a":0.2}', False), (b"[1]", b"[1.0]", False),
        (b"[1000000]", b"[1000001]", False), (b'{"a":1}', b'{"b":1}', False), (b"[1,2]", b"[1]", False),
        (b'"x"', b'"x"', True), (b"true", b"1", False), (b"null", b"null", True),
    ],
)  # fmt: skip
def test_answers__are_alike_but_for_rounding(one: bytes, other: bytes, expected: bool) -> None:
    assert alike(one, other) is expected


def test_alike__what_is_no_number_is_like_itself() -> None:
    assert alike(b'{"p":NaN,"q":0.5}', b'{"p":NaN,"q":0.5000001}')
    assert alike(b"[-Infinity]", b"[-Infinity]")
    assert not alike(b"[NaN]", b"[0.5]")
    assert not alike(b"[Infinity]", b"[-Infinity]")
