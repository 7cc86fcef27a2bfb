"""Plan and reports in and out."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.clients import tables
from tasks.clients.tables import plan_bytes, read_numbers, read_plan, read_report, report_bytes
from tasks.domain.item import UNKNOWN_SIZE, Item
from tasks.domain.result import Outcome, Tally
from tasks.domain.seal import seal

texts = st.text(max_size=20)
items = st.builds(
    Item, st.integers(0, 1 << 62), texts, texts, st.integers(UNKNOWN_SIZE, 1 << 62), texts, texts,
    st.integers(0, 1 << 32),
)  # fmt: skip
counts = st.integers(0, 2**53)  # sums of many stay within 64 bits, as real counts do
outcomes = st.builds(Outcome, counts, texts, texts, texts, st.booleans(), counts, counts, counts, counts)


@given(st.lists(items, max_size=8))
def test_plan__is_read_back_as_it_was_written(planned: list[Item]) -> None:
    assert read_plan(plan_bytes(planned)) == planned


def test_plan__of_many_items_is_small() -> None:
    planned = [Item(n, f"s3://b/in/{n:06}.jpg", f"s3://b/in/{n:06}.jpg", 100_000 + n, f"{n:06}.jpg_result.txt", "")
               for n in range(5_000)]  # fmt: skip
    data = plan_bytes(planned)
    assert read_plan(data) == planned
    assert len(data) < 512 << 10


@pytest.mark.parametrize(
    ("first", "end"), [(100, 110), (0, 200), (103, 107), (109, 110), (103, None), (110, 120), (0, 100), (107, 103)]
)
def test_plan__of_a_shard_is_read_in_part(first: int, end: int | None) -> None:
    planned = [Item(number, "s", "a", 1, "r", "") for number in range(100, 110)]
    expected = [item for item in planned if first <= item.number < (end or 1000)]
    assert read_plan(plan_bytes(planned), first, end) == expected
    assert read_plan(plan_bytes([]), first, end) == []


@given(st.lists(outcomes, max_size=8), st.lists(st.floats(0, 100), max_size=5))
def test_report__is_read_back_as_it_was_written(reported: list[Outcome], latencies: list[float]) -> None:
    tally = Tally()
    for outcome in reported:
        tally.add(outcome)
    for seconds in latencies:
        tally.request(seconds)
    back, counted = read_report(report_bytes(reported, tally))
    assert back == reported
    assert vars(counted) == vars(tally)
    numbers, files, counted = read_numbers(report_bytes(reported, tally))
    assert numbers == [outcome.number for outcome in reported]
    assert files == [(outcome.result_name, outcome.bytes_written) for outcome in reported if outcome.written]
    assert vars(counted) == vars(tally)


def test_report__without_outcomes_is_a_report() -> None:
    back, counted = read_report(report_bytes([], Tally()))
    assert back == []
    assert vars(counted) == vars(Tally())


def test_plan__of_before_there_were_versions_is_read() -> None:
    schema = pa.schema([field for field in tables._PLAN if field.name != "version"])
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.table([[7], ["s"], ["a"], [1], ["r"], [""]], schema=schema), buffer)
    assert read_plan(seal(buffer.getvalue().to_pybytes(), "owner"), owner="owner") == [Item(7, "s", "a", 1, "r", "")]
