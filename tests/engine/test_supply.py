"""What of a shard nobody has begun: every item is taken once, here or by whoever gets a part that was handed back."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.domain.item import UNKNOWN_SIZE, Item
from tasks.domain.run import ShardRef
from tasks.domain.shard import weight
from tasks.engine.supply import Supply

MIB = 1 << 20


def items_of(*sizes: int, first: int = 0) -> list[Item]:
    return [Item(first + at, f"s{first + at}", f"a{first + at}", size, "r", "") for at, size in enumerate(sizes)]


def ref_of(items: list[Item], number: int = 3) -> ShardRef:
    return ShardRef(number=number, first_item=items[0].number, items=len(items), bytes=sum(map(weight, items)))


def supply_of(*sizes: int, first: int = 100, begun: int = 0) -> Supply:
    items = items_of(*sizes, first=first)
    supply = Supply(ref_of(items), items)
    for _ in range(begun):
        assert supply.take() is not None
    return supply


def ranges(refs: list[ShardRef]) -> list[tuple[int, int]]:
    return [(ref.first_item, ref.end) for ref in refs]


def rest(supply: Supply) -> list[int]:
    return [item.number for item in iter(supply.take, None)]


def test_supply__gives_every_item_once_in_order() -> None:
    supply = supply_of(1, 2, 3)
    assert (supply.left, supply.weight) == (3, sum(map(weight, items_of(1, 2, 3))))
    assert rest(supply) == [100, 101, 102]
    assert (supply.left, supply.weight, supply.take()) == (0, 0, None)


@pytest.mark.parametrize(
    ("share", "pieces", "expected"),
    [
        (0.5, 1, [(105, 110)]),
        (0.5, 2, [(105, 108), (108, 110)]),
        (0.01, 1, [(109, 110)]),
        (1.0, 3, [(101, 104), (104, 107), (107, 110)]),
        (1.0, 99, [(number, number + 1) for number in range(101, 110)]),
        (0.0, 1, []),
    ],
)
def test_hand_back__gives_up_the_tail_in_pieces_of_about_the_same_weight(
    share: float, pieces: int, expected: list[tuple[int, int]]
) -> None:
    supply = supply_of(*[0] * 10)
    assert ranges(supply.hand_back(share, pieces)) == expected
    end = expected[0][0] if expected else 110
    assert (supply.shard.first_item, supply.shard.end) == (100, end)
    assert rest(supply) == [*range(100, end)]


def test_hand_back__keeps_one_item_unless_something_was_begun() -> None:
    assert ranges(supply_of(0, 0).hand_back(1.0, 1)) == [(101, 102)]
    assert supply_of(0).hand_back(1.0, 1) == []
    assert ranges(supply_of(0, 0, begun=1).hand_back(1.0, 1)) == [(101, 102)]
    assert supply_of(0, begun=1).hand_back(1.0, 1) == []


def test_hand_back__puts_a_large_item_where_it_makes_the_parts_most_equal() -> None:
    small = [1000] * 100
    one_in_front = supply_of(*small, 12 * MIB, *small, begun=1)
    # Half of the weight would be half of the large item: it stays, and what follows goes.
    assert ranges(one_in_front.hand_back(0.4, 1)) == [(201, 301)]
    first = supply_of(0, 12 * MIB, *small, begun=1)
    pieces = ranges(first.hand_back(1.0, 4))
    assert pieces[0] == (101, 102)
    assert [end - start for start, end in pieces[1:]] == pytest.approx([33, 33, 33], abs=1)
    last = supply_of(0, *small, 12 * MIB, begun=1)
    assert ranges(last.hand_back(1.0, 2)) == [(101, 201), (201, 202)]


def test_hand_back__covers_items_that_earlier_tries_had_done() -> None:
    # 100-109, of which 100, 101, 104, 105 and 109 have their outcomes already.
    items = [item for item in items_of(*[0] * 10, first=100) if item.number not in {100, 101, 104, 105, 109}]
    shard = ShardRef(number=3, first_item=100, items=10, bytes=0)
    supply = Supply(shard, items)
    assert ranges(supply.hand_back(1.0, 3)) == [(102, 106), (106, 108), (108, 110)]
    assert (supply.left, supply.shard.end) == (0, 102)


def test_take_again__undoes_a_hand_back() -> None:
    supply = supply_of(5, 6, 7, 8, 9, begun=1)
    before = (supply.shard, supply.left, supply.weight)
    refs = supply.hand_back(0.7, 2)
    assert [supply.take() for _ in range(supply.left)]
    begun = before[1] - supply.left - sum(ref.items for ref in refs)
    supply.take_again(refs, before[0])
    assert supply.shard == before[0]
    assert supply.left == before[1] - begun
    assert rest(supply) == [*range(101 + begun, 105)]


sizes = st.lists(st.sampled_from([UNKNOWN_SIZE, 0, 10, 1000, 100_000, 12 * MIB]), min_size=1, max_size=40)
steps = st.lists(
    st.one_of(
        st.just("take"),
        st.tuples(st.floats(0, 1), st.integers(1, 12), st.booleans()),
    ),
    max_size=30,
)


@given(sizes, st.sets(st.integers(0, 39)), steps)
def test_hand_back__keeps_ranges_disjoint_and_complete_whatever_happens(
    drawn: list[int], done: set[int], plan: list[str | tuple[float, int, bool]]
) -> None:
    shard = ref_of(items_of(*drawn))
    todo = [item for item in items_of(*drawn) if item.number not in done]
    supply = Supply(shard, todo)
    taken: list[int] = []
    given_away: list[ShardRef] = []
    for step in plan:
        if step == "take":
            if (item := supply.take()) is not None:
                taken.append(item.number)
            continue
        share, pieces, stored = step
        before = supply.shard
        refs = supply.hand_back(share, pieces)
        assert len(refs) <= pieces
        assert all(ref.items > 0 and ref.number == shard.number for ref in refs)
        if refs and not stored:
            supply.take_again(refs, before)
        else:
            given_away = [*refs, *given_away]
        unbegun = [item for item in todo if item.number < supply.shard.end and item.number not in taken]
        assert (supply.left, supply.weight) == (len(unbegun), sum(map(weight, unbegun)))
    parts = [supply.shard, *given_away]
    assert (parts[0].first_item, parts[-1].end) == (shard.first_item, shard.end)
    assert all(one.end == other.first_item for one, other in pairwise(parts))
    assert len({part.key for part in parts}) == len(parts)
    assert supply.shard.items > 0
    others = [item.number for item in todo if item.number >= supply.shard.end]
    assert taken + rest(supply) + others == [item.number for item in todo]


@given(st.integers(1, 40), st.lists(st.integers(0, 9), max_size=40), st.integers(0, 40))
def test_items__begun_from_elsewhere_are_begun_once_and_not_handed_back(
    count: int, probes: list[int], cut: int
) -> None:
    supply = supply_of(*[MIB] * count)
    taken = []
    for at, probe in enumerate(probes):
        if at == cut:
            for ref in supply.hand_back(0.5, 2):
                assert all(not ref.first_item <= number < ref.end for number in taken)
        left, before = supply.left, supply.weight
        if (item := supply.take(probe)) is not None:
            taken.append(item.number)
            assert (supply.left, supply.weight) == (left - 1, before - weight(item))
    while (item := supply.take()) is not None:
        taken.append(item.number)
    assert supply.left == supply.weight == 0
    assert sorted(taken) == list(range(supply.shard.first_item, supply.shard.end))
