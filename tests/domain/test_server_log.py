from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.domain.server_log import LAST_BYTES, KeptLines, LineBudget, LogRecord, is_of_run, stream_name


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


def test_kept_lines__are_the_first_and_the_last_and_say_what_is_missing() -> None:
    kept = KeptLines(10)
    assert kept.take(["1234", "5678", "9"]) == ["1234", "5678"]
    line = "x" * 1023
    assert [one for _ in range(4 * LAST_BYTES // 1024) for one in kept.take([line])] == []
    assert kept.take(["the end"]) == []
    missing, *last = kept.rest()
    assert last[-1] == "the end"
    size = sum(len(one) + 1 for one in last)
    assert size <= LAST_BYTES
    assert missing == f"({2 + 4 * LAST_BYTES + 8 - size} bytes are left out: THRESHER_MAX_LOG_BYTES)"


def test_kept_lines__of_little_are_all() -> None:
    kept = KeptLines(1000)
    assert (kept.take(["one", ""]), kept.rest()) == (["one", ""], [])
