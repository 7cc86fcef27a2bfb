"""Why items would be refused, counted; which of many are looked at."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

import pytest

from tasks.domain.item import Item
from tasks.domain.refused_items import (
    FIRST,
    Counts,
    Refusal,
    Sample,
    looks_like_names,
    period_refusal,
    planned_refusal,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_counts__tell_how_many_of_how_many_with_one_message_and_its_item() -> None:
    counts = Counts()
    for number in range(3):
        counts.add(Refusal("size", f"The file has {number} bytes."), f"https://h/{number}?Signature=secret")
    counts.add(Refusal("line", "Line 1 cannot be read."), "x")
    line, size = counts.counts(1_200)
    assert line.text == "1 of 1,200 items: Line 1 cannot be read (x)"
    assert size.text == "3 of 1,200 items: The file has 0 bytes (https://h/0?...)"
    assert counts.items == 4
    assert counts.counts(1, looked_at=True)[0].share == "1 of 1 item looked at"


def items(count: int) -> list[Item]:
    return [Item(number, "s", "a", 1, "r", "") for number in range(count)]


def test_sample__of_few_items_is_all_of_them() -> None:
    sample = Sample(20)
    for item in items(20):
        sample.add(item)
    assert list(sample.items) == items(20) and sample.seen == 20


def test_sample__of_many_items_has_the_first_ones_and_others_from_everywhere() -> None:
    taken: Counter[int] = Counter()
    for shift in range(100):  # other items at the places that the same chance picks
        sample = Sample(FIRST + 20)
        for item in items(1_000 + shift):
            sample.add(item)
        numbers = [item.number for item in sample.items]
        assert numbers == sorted({*numbers}) and len(numbers) == FIRST + 20
        assert numbers[:FIRST] == [*range(FIRST)]
        taken.update(number // 250 for number in numbers[FIRST:])
    assert all(taken[quarter] > 100 for quarter in range(4))


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("Line 7 of the input manifest cannot be read: not JSON.", "line"),
        ("Download file failed. It is a folder; a manifest names files.", "folder"),
        ("Download file failed. The file's name is not UTF-8.", "address"),
    ],
)
def test_planned_refusal__is_told_by_its_message(message: str, reason: str) -> None:
    assert planned_refusal(message) == (reason, message)


@pytest.mark.parametrize(
    ("query", "until"),
    [
        ("Expires=1550611914&Signature=x", "2019-02-19 21:31:54"),
        ("Signature=x&Expires=1999999999", ""),
        ("X-Amz-Date=20251231T230000Z&X-Amz-Expires=3599", "2025-12-31 23:59:59"),
        ("X-Amz-Date=20251231T230000Z&X-Amz-Expires=3601", ""),
        ("X-Obs-Date=20200101T000000Z&X-Obs-Expires=60", "2020-01-01 00:01:00"),
        ("X-Amz-Date=yesterday&X-Amz-Expires=60", ""),
        ("Expires=soon", ""),
        ("Expires=99999999999999999999", ""),
        ("", ""),
    ],
)
def test_period__of_a_share_link_is_what_its_signature_covers(query: str, until: str) -> None:
    said = period_refusal(f"https://h.example/a.jpg?{query}", NOW)
    assert (f"valid until {until} UTC" in said) if until else said == ""


@pytest.mark.parametrize(
    ("cells", "others_are_rows", "looks"),
    [
        (["sepal_length", "n"], True, True),
        (["Sepal Length", "x"], False, True),  # the name of a field, in another spelling
        (["a", "b"], False, False),
        (["sepal_length", "5.1"], True, False),
        (["", "n"], True, False),
        (["länge", "breite"], True, True),
        (["N/A", "N/A"], True, False),
        (["red", "n/a"], True, False),
    ],
)
def test_first_line__of_a_table_looks_like_names(cells: list[str], others_are_rows: bool, looks: bool) -> None:
    assert looks_like_names(cells, ["sepal_length", "sepal_width"], others_are_rows) is looks
