"""Rows in one request, against played servers that misbehave: no clock, no network."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.domain.joining import SMALLEST, Joining, Order, Unproved, rungs

HERE = (0, 0)
Wrong = Callable[[int, Sequence[int]], Sequence[int]]
"""What a server makes of its nth request: the row whose answer each row gets."""


@dataclass
class Play:
    """Files whose rows are sent to a server, some requests at once that end in any order. A row is its own answer."""

    wrong: Wrong
    wanted: int
    at_once: int
    draw: random.Random
    requests: int = 0
    joined: int = 0
    lines: list[list[int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.joining = Joining(self.draw)

    def send(self, rows: Sequence[int]) -> Sequence[int]:
        """A request."""
        self.requests += 1
        self.joined += len(rows) > 1
        return self.wrong(self.requests, rows) if len(rows) > 1 else rows

    def file(self, rows: Sequence[int]) -> None:
        """All rows of one file, again and again until its answers are in no doubt."""
        while not self._once(rows):
            assert self.joining.refused

    def _once(self, rows: Sequence[int]) -> bool:
        joining = self.joining
        lines = [-1] * len(rows)
        flying: list[tuple[Order, int, Sequence[int]]] = []
        unproved: Unproved = {}
        sample: tuple[Sequence[int], Sequence[int]] | None = None
        used = False
        at = 0
        while (at < len(rows) or flying) and not (used and joining.refused):
            order = (
                joining.order(self.wanted, len(rows) - at) if at < len(rows) and len(flying) < self.at_once else None
            )
            if order is not None:
                taken = rows[at : at + order.rows]
                flying.append((order, at, self.send(taken)))
                at += order.rows
                continue
            order, start, answers = flying.pop(self.draw.randrange(len(flying)))
            taken = rows[start : start + order.rows]
            if order.rows == 1 or joining.refused:
                lines[start : start + order.rows] = (
                    [self.send([row])[0] for row in taken] if order.rows > 1 else answers
                )
                continue
            moment = joining.answered(order)
            lines[start : start + order.rows] = answers
            singles = [self.send([taken[place]])[0] for place in order.alone]
            for place, single in zip(order.alone, singles, strict=True):
                lines[start + place] = single
            used = used or len(singles) < order.rows
            if any(single != answers[place] for place, single in zip(order.alone, singles, strict=True)):
                joining.refuse("another answer")
            elif singles:
                joining.matched(order, HERE, len({*singles}))
            else:
                unproved[HERE] = moment
                sample = (taken, answers)
            joining.not_answered(order)
        if used and not joining.covers(unproved):
            if joining.refused:
                return False
            assert sample is not None
            order = joining.last_check(len(sample[0]))
            again = self.send(sample[0])
            if [*again] != [*sample[1]] or any(self.send([sample[0][at]])[0] != again[at] for at in order.alone):
                joining.refuse("another answer")
                return False
            joining.matched(order, HERE, 2)
            assert joining.covers(unproved)
        self.lines.append(lines)
        return True


def shifted(rows: Sequence[int]) -> list[int]:
    """Each row gets the answer of the next: none its own."""
    return [*rows[1:], rows[0]]


def chunks_last_first(rows: Sequence[int], chunk: int = 8) -> list[int]:
    """As of a server that works on some rows at a time, and answers the last of them first."""
    return [one for at in reversed(range(0, len(rows), chunk)) for one in rows[at : at + chunk]]


def two_swapped(rows: Sequence[int]) -> list[int]:
    """Only the last two rows have each other's."""
    return [*rows[:-2], rows[-1], rows[-2]]


def files_of(sizes: Sequence[int]) -> list[list[int]]:
    """No two rows are alike."""
    return [[100_000 * number + row for row in range(size)] for number, size in enumerate(sizes)]


SIZES = st.lists(st.integers(1, 700), min_size=1, max_size=5)
WANTED = st.sampled_from([2, 3, 7, 16, 50, 64, 256, 1000])


@settings(max_examples=300, deadline=None)
@given(SIZES, WANTED, st.integers(1, 12), st.integers(1, 400), st.randoms(use_true_random=False))
def test_rows__of_a_server_that_is_wrong_from_some_request_on_are_right(
    sizes: list[int], wanted: int, at_once: int, first: int, draw: random.Random
) -> None:
    play = Play(lambda number, rows: shifted(rows) if number >= first else rows, wanted, at_once, draw)
    for rows in files_of(sizes):
        play.file(rows)
    assert play.lines == files_of(sizes)


@settings(max_examples=200, deadline=None)
@given(
    SIZES, WANTED, st.integers(1, 12), st.integers(2, 300), st.sampled_from([shifted, chunks_last_first, two_swapped]),
    st.randoms(use_true_random=False),
)  # fmt: skip
def test_rows__of_a_server_that_is_wrong_from_some_size_on_are_right(
    sizes: list[int], wanted: int, at_once: int, least: int, wrong: Callable[..., list[int]], draw: random.Random
) -> None:
    play = Play(lambda _, rows: wrong(rows) if len(rows) >= least else rows, wanted, at_once, draw)
    for rows in files_of(sizes):
        play.file(rows)
    assert play.lines == files_of(sizes)


@settings(max_examples=100, deadline=None)
@given(SIZES, WANTED, st.integers(1, 12), st.randoms(use_true_random=False))
def test_rows__of_a_good_server_are_joined(sizes: list[int], wanted: int, at_once: int, draw: random.Random) -> None:
    play = Play(lambda _, rows: rows, wanted, at_once, draw)
    for rows in files_of(sizes):
        play.file(rows)
    assert play.lines == files_of(sizes)
    assert play.requests <= sum(sizes) + sum({*rungs(wanted)}) + 8 * len(sizes)


@pytest.mark.parametrize("wanted", [2, 8, 16, 50])
def test_checks__are_at_most_3_in_100_requests_of_a_long_run(wanted: int) -> None:
    play = Play(lambda _, rows: rows, wanted, 8, random.Random(wanted))
    play.file(range(6000 * wanted))
    extra = play.requests - 6000
    assert 0.015 * play.requests < extra - wanted < 0.03 * play.requests


def by_chance(share: float, draw: random.Random) -> Wrong:
    """A server that gives this share of joined rows another answer."""
    return lambda _, rows: [row if draw.random() >= share else -2 for row in rows]


def test_rows__that_are_anothers_by_chance_are_all_sent_again_if_one_shows_before_the_file_is_written() -> None:
    shown = 0
    for seed in range(10):
        play = Play(by_chance(0.02, random.Random(seed)), 16, 8, random.Random(-seed))
        play.file(range(20_000))
        shown += bool(play.joining.refused)
        assert not play.joining.refused or play.lines == [[*range(20_000)]]
    assert shown >= 5  # of 1,250 requests 3 % are checks, so most runs find one of the rows


def test_rows__that_are_anothers_by_chance_are_few_in_many_files() -> None:
    written = wrong = 0
    for seed in range(20):
        play = Play(by_chance(0.05, random.Random(seed)), 16, 8, random.Random(-seed))
        for rows in files_of([5000] * 4):
            play.file(rows)
        written += 20_000
        wrong += sum(one == -2 for lines in play.lines for one in lines)
    assert wrong / written < 0.05 / 4  # without checks it were 0.05


def test_sizes__are_few() -> None:
    assert [rungs(wanted) for wanted in (2, 7, 16, 50, 1024)] == [
        [2], [7], [16, 4], [50, 12], [1024, 256, 64, 16, 4],
    ]  # fmt: skip
    assert rungs(1024)[-1] >= SMALLEST


def test_size__that_is_tried_is_waited_for() -> None:
    joining = Joining(random.Random(1))
    first = joining.order(16, 1000)
    assert first is not None and [*first.alone] == [*range(16)]
    assert joining.order(16, 984) is None
    joining.not_answered(first)
    again = joining.order(16, 984)
    assert again is not None and len(again.alone) == 16
    joining.answered(again)
    assert joining.matched(again, HERE, 16)
    later = joining.order(16, 968)
    assert later is not None and len(later.alone) <= 1


def test_size__is_not_proved_by_answers_that_are_all_the_same() -> None:
    joining = Joining(random.Random(1))
    proved = []
    for _ in range(4):
        order = joining.order(8, 100)
        assert order is not None and len(order.alone) == 8
        proved.append(joining.matched(order, HERE, 1))
    assert proved == [False, False, False, True]  # but not for ever


def test_size__grows_only_if_its_check_is_worth_it() -> None:
    joining = Joining(random.Random(1))
    order = joining.order(1024, 5000)
    assert order is not None and order.rows == 64  # 256 rows alone are more than 64, and 79 requests


def test_check__covers_what_its_own_server_answered_before_it_was_sent() -> None:
    joining = Joining(random.Random(1))
    proof = joining.order(4, 100)
    assert proof is not None
    joining.matched(proof, HERE, 4)
    orders = [joining.last_check(4) for _ in range(2)]
    early: Unproved = {HERE: joining.answered(orders[0])}
    elsewhere: Unproved = {(0, 1): joining.answered(orders[0])}
    check = joining.last_check(4)
    late: Unproved = {HERE: joining.answered(orders[1])}
    assert not joining.covers(early)
    joining.matched(check, HERE, 2)
    assert [joining.covers(one) for one in (early, late, elsewhere, {})] == [True, False, False, True]
    joining.refuse("no")
    assert not joining.covers(early) and joining.order(4, 100) is not None
