"""A run whose instances are played and whose time is counted, not waited for: who works on what is decided for real."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from tasks.domain.item import Item
from tasks.domain.run import ShardDone, ShardRef
from tasks.domain.shard import weight
from tasks.domain.sharing import HUNGRY_SECONDS, WORTH_SECONDS, Give, InstanceReport, ShardLoad, Sharing, TakeBack
from tasks.engine.supply import Supply

LOOK_SECONDS = 0.25
HANDING_OVER_SECONDS = 0.3
"""From the decision until the shard is begun."""
ASK_SECONDS = 30.0
"""An answer that has not come by then is none."""
NEVER = math.inf


@dataclass(kw_only=True)
class Played:
    """An instance that works on one item at a time. What ends in ``_at`` is a moment.

    An item takes ``item_seconds`` and ``mib_seconds`` for each MiB, times what ``changes`` (moment, factor) says last.
    In a stall (from, until) nothing goes on; ``silent``: nor is anything heard of it then. From ``unready_at`` on its
    model server answers nothing, until it is given up (``gives_up_at``). ``answer_seconds`` is how long it takes until
    is heard what it hands back, time by time, over and over.
    """

    item_seconds: float = 0.05
    mib_seconds: float = 0.0
    ready_at: float = 0.0
    lost_at: float = NEVER
    unready_at: float = NEVER
    gives_up_at: float = NEVER
    stalls: Sequence[tuple[float, float]] = ()
    silent: bool = False
    changes: Sequence[tuple[float, float]] = ()
    answer_seconds: Sequence[float] = (0.0,)

    work: dict[str, Supply] = field(default_factory=dict)
    done: dict[str, int] = field(default_factory=dict)
    arriving: list[tuple[float, ShardRef]] = field(default_factory=list)
    free_at: float = 0.0
    current: tuple[str, Item] | None = None
    finished: int = 0
    asked: int = 0

    def seconds(self, item: Item, now: float) -> float:
        """How long an item takes that is begun now, stalls aside."""
        factor = next((factor for since, factor in reversed(self.changes) if since <= now), 1.0)
        return (self.item_seconds + self.mib_seconds * item.size / (1 << 20)) * factor

    def end(self, item: Item, now: float) -> float:
        """The moment at which an item will be done that is begun now."""
        left = self.seconds(item, now)
        for since, until in self.stalls:
            if until <= now:
                continue
            if now + left <= since:
                break
            left -= max(0.0, since - now)
            now = max(now, until)
        return now + left

    def stalled_until(self, now: float) -> float:
        """The end of the stall that it is in, if it is silent; else now."""
        return next((until for since, until in self.stalls if self.silent and since <= now < until), now)

    @property
    def idle(self) -> bool:
        """Whether it has nothing to do, and nothing is on its way to it."""
        return self.current is None and not self.arriving and not any(supply.left for supply in self.work.values())


@dataclass
class _Answer:
    """What is asked of an instance: when it does it, and when that is heard (or not)."""

    done_at: float
    heard_at: float
    heard: bool
    move: TakeBack
    told: bool = False
    pieces: Sequence[ShardRef] | None = None


class Play:
    """Plays a run with items of these sizes, or so many of one size, cut into so many shards."""

    def __init__(self, instances: Sequence[Played], items: int | Sequence[int], shards: int = 1) -> None:
        self.instances = {f"i{number}": one for number, one in enumerate(instances)}
        sizes = [0] * items if isinstance(items, int) else items
        self.items = [
            Item(number, f"{number}", f"{number}", size, f"{number}", "") for number, size in enumerate(sizes)
        ]
        each = -(-len(sizes) // shards)
        self.sharing = Sharing(
            [
                ShardRef(number=number, first_item=first, items=min(each, len(sizes) - first), bytes=0)
                for number, first in enumerate(range(0, len(sizes), each))
            ]
        )
        self.outcomes: dict[int, int] = {}
        self.cuts: dict[str, int] = {}
        """Where shards end, as it is stored: whoever takes one up again reads it."""
        self.answers: list[_Answer] = []
        self.now = 0.0
        self.handed_over = 0
        self.asked = 0
        self.wasted_seconds = 0.0
        """Of instances that had nothing to do while another could have handed over something worth it."""

    def run(self) -> float:
        """The moment at which all is done; every item is done exactly once."""
        while not self.sharing.finished:
            assert self.now < 100_000, "it does not end"
            for name, one in self.instances.items():
                self._advance(one, self.now)
                if self.now >= one.lost_at:
                    self._lose(name, one)
                elif self.now >= one.gives_up_at:
                    self._give_up(one)
                if one.ready_at <= self.now < one.gives_up_at and one.stalled_until(self.now) == self.now:
                    self.sharing.heard(name, self._report(one))
            for one in self.instances.values():
                for key in [key for key, supply in one.work.items() if self._is_done(one, key, supply)]:
                    self._end(one, key)
            self._hear()
            for move in self.sharing.moves():
                self._do(move)
            self._note_waste()
            self.now += LOOK_SECONDS
        assert sorted(self.outcomes) == list(range(len(self.items)))
        assert set(self.outcomes.values()) <= {1}
        covered = sorted((done.shard.first_item, done.shard.behind) for done in self.sharing.results)
        ends = [0, *(behind for _, behind in covered)]
        assert [first for first, _ in covered] == ends[:-1]
        assert ends[-1] == len(self.items)
        assert self.sharing.counts == (len(self.items), 0)
        return max(one.free_at for one in self.instances.values())

    def _advance(self, one: Played, until: float) -> None:
        for when, ref in list(one.arriving):
            if when <= until:
                one.arriving.remove((when, ref))
                ref = ref.until(min(ref.behind, self.cuts.get(ref.key, ref.behind)))
                mine = [item for item in self.items[ref.first_item : ref.behind] if item.number not in self.outcomes]
                one.work[ref.key] = Supply(ref, mine)
                one.done[ref.key] = ref.items - len(mine)
                one.free_at = max(one.free_at, when)
        while one.free_at <= min(until, one.lost_at, one.unready_at):
            if one.current is not None:
                key, item = one.current
                self.outcomes[item.number] = self.outcomes.get(item.number, 0) + 1
                one.done[key] += 1
                one.finished += weight(item)
                one.current = None
            begun = next(((key, item) for key, s in one.work.items() if (item := s.take()) is not None), None)
            if begun is None:
                return
            one.current = begun
            one.free_at = one.end(begun[1], one.free_at)

    def _is_done(self, one: Played, key: str, supply: Supply) -> bool:
        return not supply.left and (one.current is None or one.current[0] != key)

    def _report(self, one: Played) -> InstanceReport:
        loads = {
            key: ShardLoad(supply.left, supply.weight, one.done[key], 0, supply.shard.behind)
            for key, supply in one.work.items()
        }
        ready = self.now < one.unready_at
        return InstanceReport(seconds=self.now, ready=ready, shards=loads, finished=one.finished)

    def _end(self, one: Played, key: str) -> None:
        ref = one.work.pop(key).shard
        done = one.done.pop(key)
        assert done == ref.items
        self.sharing.ended(key, ShardDone(shard=ref, report="", successful=done, failed=0, started_at=0, ended_at=0))

    def _lose(self, name: str, one: Played) -> None:
        self.sharing.lost(name)
        refs = [*(supply.shard for supply in one.work.values()), *(ref for _, ref in one.arriving)]
        self._drop(one)
        for ref in refs:  # as the coordinator does
            self.sharing.failed(ref.key)

    def _give_up(self, one: Played) -> None:
        keys = [*one.work, *(ref.key for _, ref in one.arriving)]
        self.sharing.heard("", InstanceReport(seconds=self.now, ready=False))  # one that says nothing changes nothing
        self._drop(one)
        for key in keys:
            self.sharing.failed(key)

    def _drop(self, one: Played) -> None:
        one.lost_at = NEVER
        one.ready_at = NEVER
        one.work, one.arriving, one.current, one.gives_up_at = {}, [], None, NEVER

    def _do(self, move: Give | TakeBack) -> None:
        one = self.instances[move.instance]
        if isinstance(move, Give):
            self.handed_over += 1
            one.arriving.append((self.now + HANDING_OVER_SECONDS, move.shard))
            return
        self.asked += 1
        done_at = one.stalled_until(self.now)
        heard_at = done_at + one.answer_seconds[one.asked % len(one.answer_seconds)]
        one.asked += 1
        heard = heard_at - self.now <= ASK_SECONDS
        self.answers.append(_Answer(done_at, heard_at if heard else self.now + ASK_SECONDS, heard, move))
        self._hear()

    def _hear(self) -> None:
        for answer in list(self.answers):
            move = answer.move
            if answer.pieces is None and answer.done_at <= self.now:
                supply = self.instances[move.instance].work.get(move.key)
                answer.pieces = supply.hand_back(move.share, move.pieces) if supply is not None else []
                if answer.pieces:
                    self.cuts[move.key] = answer.pieces[0].first_item
            if answer.heard_at <= self.now and not answer.told:
                answer.told = True
                self.sharing.handed_back(move.key, answer.pieces or [] if answer.heard else [])
            if answer.told and answer.pieces is not None:
                self.answers.remove(answer)

    def _note_waste(self) -> None:
        ready = [one for one in self.instances.values() if one.ready_at <= self.now < one.unready_at]
        idle = [one for one in ready if one.idle and one.stalled_until(self.now) == self.now]
        if not idle:
            return
        worth = max((self._seconds_left(one) for one in self.instances.values()), default=0.0)
        if worth > 2 * (HUNGRY_SECONDS + WORTH_SECONDS):
            self.wasted_seconds += LOOK_SECONDS * len(idle)

    def _seconds_left(self, one: Played) -> float:
        """How long what it has not begun would take there; of each shard one item cannot be handed over."""
        left = 0.0
        for supply in one.work.values():
            ref = supply.shard
            todo = [item for item in self.items[ref.first_item : ref.behind] if item.number not in self.outcomes]
            left += sum(one.seconds(item, self.now) for item in todo[len(todo) - supply.left + 1 :])
        return left
