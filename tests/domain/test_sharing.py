"""Sharing out, with instances that are played: each begins items at its own rate."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from tasks.domain.item import Item
from tasks.domain.run import ShardDone, ShardRef
from tasks.domain.shard import weight
from tasks.domain.sharing import Give, InstanceReport, ShardLoad, Sharing, TakeBack
from tasks.engine.supply import Supply

LOOK_SECONDS = 0.25
HANDING_OVER_SECONDS = 0.3
"""From the decision until the shard is begun."""


@dataclass
class Played:
    """An instance that works on one item at a time; ``ready_at`` and ``lost_at`` are moments."""

    seconds_an_item: float
    ready_at: float = 0.0
    lost_at: float = float("inf")
    work: dict[str, Supply] = field(default_factory=dict)
    done: dict[str, list[int]] = field(default_factory=dict)
    arriving: list[tuple[float, ShardRef]] = field(default_factory=list)
    free_at: float = 0.0
    current: tuple[str, Item] | None = None
    finished: int = 0


class Play:
    """A run whose time is counted, not waited for."""

    def __init__(self, instances: list[Played], items: int, shards: int = 1) -> None:
        self.instances = {f"i{number}": one for number, one in enumerate(instances)}
        self.items = [Item(number, f"{number}", f"{number}", 0, f"{number}", "") for number in range(items)]
        size = -(-items // shards)
        refs = [
            ShardRef(number=number, first_item=first, items=min(size, items - first), bytes=0)
            for number, first in enumerate(range(0, items, size))
        ]
        self.sharing = Sharing(refs)
        self.given: dict[str, ShardRef] = {}
        self.outcomes: dict[int, int] = {}
        self.now = 0.0
        self.handed_over = 0

    def run(self) -> float:
        """The moment at which all is done; every item is done exactly once."""
        while not self.sharing.finished:
            assert self.now < 100_000, "it does not end"
            for name, one in self.instances.items():
                self._advance(one, self.now)
                if self.now >= one.lost_at:
                    self._lose(name, one)
                elif self.now >= one.ready_at:
                    self.sharing.heard(name, self._report(one))
            for one in self.instances.values():
                for key in [key for key, supply in one.work.items() if self._is_done(one, key, supply)]:
                    self._end(one, key)
            for move in self.sharing.moves():
                self._do(move)
            self.now += LOOK_SECONDS
        assert sorted(self.outcomes) == list(range(len(self.items)))
        assert set(self.outcomes.values()) == {1}
        covered = sorted((done.shard.first_item, done.shard.behind) for done in self.sharing.results)
        assert [first for first, _ in covered] == [0, *(behind for _, behind in covered[:-1])]
        return max(one.free_at for one in self.instances.values())

    def _advance(self, one: Played, until: float) -> None:
        for when, ref in list(one.arriving):
            if when <= until:
                one.arriving.remove((when, ref))
                mine = [item for item in self.items[ref.first_item : ref.behind] if item.number not in self.outcomes]
                one.work[ref.key] = Supply(ref, mine)
                one.done[ref.key] = []
                one.free_at = max(one.free_at, when)
        while one.free_at <= min(until, one.lost_at):
            if one.current is not None:
                key, item = one.current
                self.outcomes[item.number] = self.outcomes.get(item.number, 0) + 1
                one.done[key].append(item.number)
                one.finished += weight(item)
                one.current = None
            begun = next(((k, i) for k, s in one.work.items() if (i := s.take()) is not None), None)
            if begun is None:
                return
            one.current = begun
            one.free_at += one.seconds_an_item

    def _is_done(self, one: Played, key: str, supply: Supply) -> bool:
        return not supply.left and (one.current is None or one.current[0] != key)

    def _report(self, one: Played) -> InstanceReport:
        loads = {key: ShardLoad(supply.left, supply.weight, len(one.done[key]), 0) for key, supply in one.work.items()}
        return InstanceReport(seconds=self.now, ready=True, shards=loads, finished=one.finished)

    def _end(self, one: Played, key: str) -> None:
        ref = one.work.pop(key).shard
        done = len(one.done.pop(key))
        self.sharing.ended(key, ShardDone(shard=ref, report="", successful=done, failed=0, started_at=0, ended_at=0))

    def _lose(self, name: str, one: Played) -> None:
        one.lost_at = float("inf")
        one.ready_at = float("inf")
        self.sharing.lost(name)
        others = [other for other in self.instances.values() if other.ready_at <= self.now]
        for supply in one.work.values():  # as Dask does
            min(others, key=lambda other: len(other.work)).arriving.append((self.now, supply.shard))
        for _, ref in one.arriving:
            others[0].arriving.append((self.now, ref))
        one.work, one.arriving, one.current = {}, [], None

    def _do(self, move: Give | TakeBack) -> None:
        one = self.instances[move.instance]
        if isinstance(move, Give):
            self.handed_over += 1
            one.arriving.append((self.now + HANDING_OVER_SECONDS, move.shard))
        else:
            refs = one.work[move.key].hand_back(move.share, move.pieces) if move.key in one.work else []
            self.sharing.handed_back(move.key, refs)


@pytest.mark.parametrize("shards", [1, 3, 40])
def test_sharing__with_one_instance_four_times_slower_takes_little_more_than_the_ideal(shards: int) -> None:
    play = Play([Played(0.02), Played(0.02), Played(0.02), Played(0.08)], 4000, shards)
    ideal = 4000 / (3 / 0.02 + 1 / 0.08)
    assert play.run() <= 1.15 * ideal


def test_sharing__of_one_shard_among_many_instances_keeps_all_busy() -> None:
    play = Play([Played(0.5) for _ in range(32)], 5000)
    assert play.run() <= 1.15 * 5000 * 0.5 / 32


def test_sharing__does_not_wait_for_an_instance_that_starts_late_or_never() -> None:
    late = Play([Played(0.05), Played(0.05, ready_at=60)], 4000)
    ideal = 60 + (4000 - 60 / 0.05) * 0.05 / 2
    assert late.run() <= 1.15 * ideal
    never = Play([Played(0.05), Played(0.05, ready_at=1e9)], 400)
    assert never.run() <= 1.15 * 400 * 0.05


def test_sharing__goes_on_when_an_instance_is_lost() -> None:
    play = Play([Played(0.05), Played(0.05), Played(0.05, lost_at=10)], 3000, 2)
    ideal = 10 + (3000 - 3 * 10 / 0.05) * 0.05 / 2
    assert play.run() <= 1.15 * ideal


def test_sharing__hands_over_seldom() -> None:
    play = Play([Played(0.02) for _ in range(4)], 20_000, 4)
    play.run()
    assert play.handed_over <= 40


def test_sharing__gives_shards_one_after_the_other_while_they_wait() -> None:
    play = Play([Played(0.01), Played(0.01)], 4000, 100)
    play.run()
    assert play.handed_over <= 110
