"""A run whose instances are played and whose time is counted, not waited for: who works on what is decided for real."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from tasks.domain.coordination import (
    LOOK_SECONDS,
    Begin,
    Coordination,
    Drop,
    ListWorkers,
    LookAt,
    Order,
    Question,
    Show,
    StopEarly,
)
from tasks.domain.errors import ModelServerError
from tasks.domain.item import Item
from tasks.domain.run import Plan, ShardDone, ShardRef
from tasks.domain.service import BatchService
from tasks.domain.shard import weight
from tasks.domain.sharing import HUNGRY_SECONDS, WORTH_SECONDS, Give, InstanceReport, ShardLoad, TakeBack
from tasks.engine.supply import Supply

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
class _Asked:
    """A question: when an instance does what it is asked, and when its answer arrives (or is no longer awaited)."""

    question: Question
    done_at: float
    heard_at: float
    heard: bool = True
    answered: bool = False
    pieces: Sequence[ShardRef] | None = None


class Play:
    """A fleet that processes items of these sizes, or so many of one size, cut into so many shards."""

    def __init__(self, instances: Sequence[Played], items: int | Sequence[int], shards: int = 1) -> None:
        self.instances = {f"i{number}": one for number, one in enumerate(instances)}
        sizes = [0] * items if isinstance(items, int) else items
        self.items = [
            Item(number, f"{number}", f"{number}", size, f"{number}", "") for number, size in enumerate(sizes)
        ]
        each = -(-len(sizes) // shards)
        refs = tuple(
            ShardRef(number=number, first_item=first, items=min(each, len(sizes) - first), bytes=0)
            for number, first in enumerate(range(0, len(sizes), each))
        )
        service = BatchService(
            name="played", model="model", input_path="/in", output_path="/out", instances=len(instances)
        )
        plan = Plan(items=len(sizes), bytes=0, unknown_sizes=0, shards=refs)
        self.decisions = Coordination(service, "/out", plan, "tcp://played", 0.0)
        self.outcomes: dict[int, int] = {}
        self.cuts: dict[str, int] = {}
        """Where shards end, as it is stored: an instance that takes one up again reads it."""
        self.holders: dict[str, str] = {}
        self.questions: list[_Asked] = []
        self.dropped: list[str] = []
        self.shown: Show | None = None
        self.now = 0.0
        self.handed_over = 0
        self.asked = 0
        self.noted_at = 0.0
        self.wasted_seconds = 0.0
        """Of instances that had nothing to do while another could have handed over something worth it."""

    def run(self) -> float:
        """The moment at which all is done; every item is done exactly once."""
        results = asyncio.run(self.decisions.direct(self))
        assert sorted(self.outcomes) == list(range(len(self.items)))
        assert set(self.outcomes.values()) <= {1}
        covered = sorted((done.shard.first_item, done.shard.end) for done in results)
        ends = [0, *(end for _, end in covered)]
        assert [first for first, _ in covered] == ends[:-1]
        assert ends[-1] == len(self.items)
        assert self.shown is not None
        assert (self.shown.done, self.shown.failed) == (len(self.items), 0)
        return max(one.free_at for one in self.instances.values())

    async def wait(self, pause: float, until: float) -> float:
        """Count the time on to the next answer or to ``until``, and tell the decisions what happened by then."""
        assert self.now < 100_000, "it does not end"
        self.now = max(self.now + pause, min([until, *(one.heard_at for one in self.questions if not one.answered)]))
        for key in self.dropped:
            if self.holders.pop(key, None) is not None:
                self.decisions.interrupted(key, None, self.now)
        self.dropped = []
        for one in self.instances.values():
            self._advance(one, self.now)
            if self.now >= one.lost_at:
                one.work, one.arriving, one.current = {}, [], None
            elif self.now >= one.gives_up_at:
                self._give_up(one)
            for key in [key for key, supply in one.work.items() if self._is_done(one, key, supply)]:
                self._end(one, key)
        self._hear()
        if self.now >= self.noted_at + LOOK_SECONDS:
            self._note_waste(self.now - self.noted_at)
            self.noted_at = self.now
        return self.now

    def do(self, order: Order) -> None:
        """Begin to carry out an order."""
        match order:
            case Give(instance, shard):
                self.handed_over += 1
                self.holders[shard.key] = instance
                self.instances[instance].arriving.append((self.now + HANDING_OVER_SECONDS, shard))
            case Drop(key):
                self.dropped.append(key)
            case Show():
                self.shown = order
            case ListWorkers():
                self.questions.append(_Asked(order, self.now, self.now))
            case Begin() | LookAt() | StopEarly() | TakeBack():
                self._ask(order)

    def _ask(self, question: Begin | LookAt | StopEarly | TakeBack) -> None:
        one = self.instances[question.instance]
        heard_at = done_at = one.stalled_until(self.now)
        if isinstance(question, TakeBack):
            self.asked += 1
            heard_at += one.answer_seconds[one.asked % len(one.answer_seconds)]
            one.asked += 1
        late_at = self.now + ASK_SECONDS
        self.questions.append(_Asked(question, done_at, min(heard_at, late_at), heard_at <= late_at))

    def _advance(self, one: Played, until: float) -> None:
        """Let an instance work until this moment."""
        if until < one.free_at and not one.arriving:
            return
        for when, ref in list(one.arriving):
            if when <= until:
                one.arriving.remove((when, ref))
                ref = ref.until(min(ref.end, self.cuts.get(ref.key, ref.end)))
                mine = [item for item in self.items[ref.first_item : ref.end] if item.number not in self.outcomes]
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
            key: ShardLoad(supply.left, supply.weight, one.done[key], 0, supply.shard.end)
            for key, supply in one.work.items()
        }
        ready = one.ready_at <= self.now < min(one.unready_at, one.gives_up_at)
        error = "Its model server answers no more." if self.now >= one.gives_up_at else ""
        return InstanceReport(seconds=self.now, ready=ready, shards=loads, error=error, finished=one.finished)

    def _end(self, one: Played, key: str) -> None:
        ref = one.work.pop(key).shard
        done = one.done.pop(key)
        assert done == ref.items
        del self.holders[key]
        self.decisions.ended(key, ShardDone(shard=ref, report="", successful=done, failed=0, started_at=0, ended_at=0))

    def _give_up(self, one: Played) -> None:
        for key in [*one.work, *(ref.key for _, ref in one.arriving)]:
            del self.holders[key]
            self.decisions.interrupted(key, ModelServerError("Its model server answers no more."), self.now)
        one.work, one.arriving, one.current = {}, [], None

    def _hear(self) -> None:
        for asked in list(self.questions):
            question = asked.question
            if isinstance(question, TakeBack) and asked.pieces is None and asked.done_at <= self.now:
                supply = self.instances[question.instance].work.get(question.key)
                asked.pieces = supply.hand_back(question.share, question.pieces) if supply is not None else []
                if asked.pieces:
                    self.cuts[question.key] = asked.pieces[0].first_item
            if asked.heard_at <= self.now and not asked.answered:
                asked.answered = True
                self._answer(asked)
            if asked.answered and (asked.pieces is not None or not isinstance(question, TakeBack)):
                self.questions.remove(asked)

    def _answer(self, asked: _Asked) -> None:
        question = asked.question
        if isinstance(question, ListWorkers):
            there = [name for name, one in self.instances.items() if self.now < one.lost_at]
            self.decisions.answered(question, (there, ""), self.now)
        elif not asked.heard or self.now >= self.instances[question.instance].lost_at:
            self.decisions.unanswered(question, TimeoutError(), self.now)
        else:
            report = self._report(self.instances[question.instance])
            answers = {Begin: True, LookAt: report, StopEarly: None, TakeBack: asked.pieces}
            self.decisions.answered(question, answers[type(question)], self.now)

    def _note_waste(self, seconds: float) -> None:
        ready = [one for one in self.instances.values() if one.ready_at <= self.now < min(one.unready_at, one.lost_at)]
        idle = [one for one in ready if one.idle and one.stalled_until(self.now) == self.now]
        if not idle:
            return
        worth = max((self._seconds_left(one) for one in self.instances.values()), default=0.0)
        if worth > 2 * (HUNGRY_SECONDS + WORTH_SECONDS):
            self.wasted_seconds += seconds * len(idle)

    def _seconds_left(self, one: Played) -> float:
        """How long what it has not begun would take there; of each shard one item cannot be handed over."""
        left = 0.0
        for supply in one.work.values():
            ref = supply.shard
            todo = [item for item in self.items[ref.first_item : ref.end] if item.number not in self.outcomes]
            left += sum(one.seconds(item, self.now) for item in todo[len(todo) - supply.left + 1 :])
        return left
