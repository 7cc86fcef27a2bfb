"""How items are cut into shards."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.domain.item import UNKNOWN_SIZE, Item
from tasks.domain.run import ShardRef
from tasks.domain.shard import GROW_EVERY, Cutter, ShardBounds


def items(*sizes: int) -> list[Item]:
    return [Item(number, f"s{number}", f"s{number}", size, f"r{number}", "") for number, size in enumerate(sizes)]


def cut(bounds: ShardBounds, given_items: list[Item]) -> tuple[Cutter, list[tuple[ShardRef, list[Item]]]]:
    cutter = Cutter(bounds)
    shards = [full for item in given_items if (full := cutter.add(item)) is not None]
    if (last := cutter.end()) is not None:
        shards.append(last)
    return cutter, shards


def counts(bounds: ShardBounds, *sizes: int) -> list[int]:
    return [ref.items for ref, _ in cut(bounds, items(*sizes))[1]]


@pytest.mark.parametrize(
    ("bounds", "sizes", "expected"),
    [
        (ShardBounds(3, 100), [], []),
        (ShardBounds(3, 100), [1], [1]),
        (ShardBounds(3, 100), [1] * 3, [3]),
        (ShardBounds(3, 100), [1] * 7, [3, 3, 1]),
        (ShardBounds(9, 100), [50, 50, 1], [2, 1]),
        (ShardBounds(9, 100), [60, 60], [1, 1]),
        (ShardBounds(9, 100), [1, 500, 1], [1, 1, 1]),
        (ShardBounds(9, 100), [100, 0, 0, 1], [3, 1]),
        (ShardBounds(9, 100, 40), [UNKNOWN_SIZE] * 5, [2, 2, 1]),
        (ShardBounds(1, 1), [9, 9], [1, 1]),
    ],
)
def test_shard__ends_before_the_item_that_would_be_too_much(
    bounds: ShardBounds, sizes: list[int], expected: list[int]
) -> None:
    assert counts(bounds, *sizes) == expected


def test_shard__counts_totals() -> None:
    cutter, _ = cut(
        ShardBounds(2, 100, 10), [*items(5, UNKNOWN_SIZE, 7), Item(3, "s", "", UNKNOWN_SIZE, "r", "no source")]
    )
    assert (cutter.items, cutter.bytes, cutter.unknown_sizes) == (4, 12, 1)
    assert [(s.number, s.first_item, s.items, s.bytes) for s in cutter.shards] == [(0, 0, 2, 15), (1, 2, 2, 17)]


def test_shard__bounds_double_after_every_200_shards() -> None:
    bounds = ShardBounds(items=5, bytes=100)
    assert bounds.at(0) == bounds.at(GROW_EVERY - 1) == (5, 100)
    assert bounds.at(GROW_EVERY) == (10, 200)
    assert bounds.at(2 * GROW_EVERY) == (20, 400)
    assert bounds.at(10**9) == (5 << 16, 100 << 16)


def test_shard__later_shards_are_larger_so_that_a_large_input_stays_about_1000_shards() -> None:
    cutter, shards = cut(ShardBounds(items=1), items(*[1] * 20_000))
    assert len(shards) < 1_500
    assert [ref.items for ref, _ in shards[:GROW_EVERY]] == [1] * GROW_EVERY
    assert [ref.items for ref, _ in shards[GROW_EVERY : 2 * GROW_EVERY]] == [2] * GROW_EVERY
    # What the docstring says of 100 million items, by arithmetic.
    left, number = 100_000_000, 0
    while left > 0:
        left -= ShardBounds().at(number)[0]
        number += 1
    assert number < 1_500
    assert cutter.items == 20_000


sizes = st.lists(st.one_of(st.just(UNKNOWN_SIZE), st.integers(0, 50), st.integers(0, 400)), max_size=60)


@given(sizes, st.integers(1, 10), st.integers(1, 200), st.integers(0, 60))
def test_shard__every_item_is_in_exactly_one_shard_in_order_within_bounds(
    drawn: list[int], most_items: int, most_bytes: int, unknown: int
) -> None:
    bounds = ShardBounds(most_items, most_bytes, unknown)
    given_items = items(*drawn)
    cutter, shards = cut(bounds, given_items)
    assert [item for _, shard in shards for item in shard] == given_items
    assert [ref for ref, _ in shards] == cutter.shards
    assert [ref.number for ref in cutter.shards] == list(range(len(shards)))
    for ref, shard in shards:
        weight = sum(bounds.weight(item) for item in shard)
        assert (ref.first_item, ref.items, ref.bytes) == (shard[0].number, len(shard), weight)
        assert 1 <= len(shard) <= most_items
        assert weight <= most_bytes or len(shard) == 1
    for (_, before), (_, end) in pairwise(shards):
        weight = sum(bounds.weight(item) for item in [*before, end[0]])
        assert len(before) == most_items or weight > most_bytes  # no shard ends early
    assert cutter.end() is None
    assert cutter.items == len(drawn)
    assert cutter.bytes == sum(size for size in drawn if size >= 0)


def test_shard__names_its_files_so_that_they_sort() -> None:
    shard = ShardRef(number=7, first_item=0, items=1, bytes=0)
    assert (shard.folder, shard.plan_name) == ("shards/00007", "shards/00007/plan.parquet")
    assert shard.report_name("0a1b") == f"shards/00007/report-{shard.first_item}-0a1b.parquet"


def test_shard__of_which_the_end_is_cut_off_keeps_its_name() -> None:
    shard = ShardRef(number=7, first_item=100, items=50, bytes=1000)
    assert (shard.end, shard.until(120)) == (150, ShardRef(number=7, first_item=100, items=20, bytes=400))
    assert shard.until(120).key == shard.key == "00007-100"
