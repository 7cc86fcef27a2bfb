from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.domain.server_log import MASK, SECRET_LENGTH, LineBudget, LogRecord, Masker, is_of_run, stream_name

SECRET = st.text(st.characters(exclude_characters="*\0", exclude_categories=["Cs"]), min_size=SECRET_LENGTH)


@pytest.mark.parametrize(
    ("secrets", "text", "shown"),
    [
        ((), b"nothing to hide", b"nothing to hide"),
        (("opensesame",), b"it is opensesame, opensesame!", b"it is ***, ***!"),
        (("open", "opensesame"), b"opensesame open", b"*** ***"),
        (("abc",), b"abc stays: too short", b"abc stays: too short"),
        (("first line\nsecond line",), b"  first line\\n", b"  ***\\n"),
        (("first line\nsecond line",), b"first line\nsecond line", b"***"),
        (("käse123",), "ein käse123".encode(), b"ein ***"),
        (("secret",), b"sec\0ret", b"***"),
        (("p@ss w/rd",), b"p%40ss%20w%2Frd p%40ss+w%2Frd p%40ss%20w/rd", b"*** *** ***"),
        (('say "käse"',), 'x=say \\"käse\\" y=say \\"k\\u00e4se\\"'.encode(), b"x=*** y=***"),
        (("abcdef", "defghi"), b"abcdefghi abcabcdef", b"*** abc***"),
    ],
)
def test_masker__hides_secrets(secrets: tuple[str, ...], text: bytes, shown: bytes) -> None:
    assert Masker(secrets).mask(text) == shown


@given(secrets=st.lists(SECRET.map(str.strip).filter(lambda one: len(one) >= SECRET_LENGTH)), between=st.text())
def test_masker__leaves_no_secret(secrets: list[str], between: str) -> None:
    masker = Masker(secrets)
    shown = masker.mask(between.encode().join(one.encode() for one in secrets))
    assert all(one.encode() not in shown for one in secrets)
    assert masker.longest >= max((len(one.encode()) for one in secrets), default=0)


def test_masker__blanks_without_changing_the_length() -> None:
    masker = Masker(["opensesame"])
    assert masker.blank(b"a opensesame b") == b"a " + b"\0" * 10 + b" b"
    assert masker.shown(b"a \0\0\0 b\0") == b"a " + MASK + b" b" + MASK


def test_stream__is_of_one_run_only() -> None:
    assert is_of_run(stream_name("task", 0), "task") and is_of_run(stream_name("task", 17), "task")
    assert not is_of_run(stream_name("task-1", 0), "task") and not is_of_run(stream_name("task", 0), "tas")


def test_line_budget__allows_a_burst_then_a_rate_and_counts_the_rest() -> None:
    budget = LineBudget(per_second=2, burst=3)
    assert [budget.allow(10.0) for _ in range(5)] == [True, True, True, False, False]
    assert (budget.take_held_back(), budget.take_held_back()) == (2, 0)
    assert [budget.allow(11.0) for _ in range(3)] == [True, True, False]
    assert [budget.allow(1000.0) for _ in range(4)] == [True, True, True, False]
    assert budget.take_held_back() == 2


@given(message=st.text(st.characters(codec=None)), instance=st.integers(0, 999))
def test_record__is_one_line_and_the_same_after_a_journey_through_json(message: str, instance: int) -> None:
    stream = stream_name("task", instance)
    record = LogRecord(datetime(2026, 1, 2, 3, 4, 5, 678000, UTC), "group", stream, "task", instance, message)
    line = record.to_json()
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    expected = message.encode("utf-8", "replace").decode()
    assert LogRecord.from_json(line) == LogRecord(record.time, "group", stream, "task", instance, expected)


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b"1", b'{"time": "x"}', b'{"time": 3, "group": "g"}', b"\xff"])
def test_record__of_something_else_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # JSON's own errors say what is wrong in their words
        LogRecord.from_json(line)
