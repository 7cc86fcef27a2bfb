"""How the shards of a run are shared out among its instances: by load, not by count. One pure book-keeping.

Shards wait in one line. An instance is given a shard when it is about to have nothing to do; once none waits, the
instance that would be busy longest gives up a part of what it has not begun. So an instance that is slow, starts late,
dies or never starts holds nobody up, whatever the shards are like.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tasks.domain.run import ShardDone, ShardRef

SHARDS_AT_ONCE = 2
"""Shards that an instance works on: while one runs out of items, the other keeps it busy."""
HUNGRY_SECONDS = 1.0
"""An instance with less to begin than that is given more."""
WORTH_SECONDS = 1.0
"""What one instance takes over from another must be worth the seconds that handing over may take."""
RATE_SECONDS = 5.0
"""An instance's rate is that of about the last so many seconds."""


@dataclass(frozen=True, slots=True)
class ShardLoad:
    """How far an instance is with one shard: items (and their weight) that it has not begun, outcomes so far.

    ``behind`` is the number of the first item that is not its business any more; 0 if it does not say.
    """

    left: int
    weight: int
    done: int
    failed: int
    behind: int = 0


@dataclass(frozen=True, slots=True)
class InstanceReport:
    """What an instance says of itself when it is looked at. ``seconds`` is its own clock, counting up."""

    seconds: float
    ready: bool
    shards: Mapping[str, ShardLoad] = field(default_factory=dict)
    error: str = ""
    """Why it was given up; empty while it is not."""
    cut_off: bool = False
    """It does not reach the storage for now; then ``error`` says so."""
    finished: int = 0
    """Weight of all items that it has finished so far."""
    sick: int = 0
    stopped: str = ""
    """Why it sends no further request; empty while it does."""
    away: str = ""
    """Why its model server was waited for no longer, if it was given up for that."""
    outage: str = ""
    """Why its model server takes no request, while it is waited for."""
    outage_seconds: float = 0.0
    """For how long it has taken none."""


@dataclass(frozen=True, slots=True)
class Give:
    """Let ``instance`` work on ``shard``."""

    instance: str
    shard: ShardRef


@dataclass(frozen=True, slots=True)
class TakeBack:
    """Let ``instance`` hand back about ``share`` of the weight that it has not begun of shard ``key``."""

    instance: str
    key: str
    share: float
    pieces: int


def run_outage(reports: Iterable[InstanceReport]) -> tuple[str, float]:
    """Why no model server of a run takes requests, and for how many seconds none has; "" and 0 while one does.

    Instances that were given up, or are not ready, are none that could.
    """
    left = [one for one in reports if one.ready and not one.error]
    if not left or not all(one.outage for one in left):
        return "", 0.0
    latest = min(left, key=lambda one: one.outage_seconds)
    return latest.outage, latest.outage_seconds


def run_loss(given_up: Mapping[int, str], away: Mapping[int, str]) -> str:
    """Why a run stops all of whose instances were ``given_up``, by number; of some the model server is ``away``."""
    if set(given_up) <= set(away):
        return next(iter(away.values()))
    died = next(reason for number, reason in given_up.items() if number not in away)
    return f"no instance is left: {died}".split("\n", 1)[0]


class _Instance:
    def __init__(self) -> None:
        self.ready = False
        self.rate = 0.0
        """Weight that it finishes in a second, lately; 0 while unknown."""
        self.loads: dict[str, ShardLoad] = {}
        self.given: set[str] = set()
        self._before: tuple[float, int] | None = None
        self._busy_seconds = 0.0

    def heard(self, report: InstanceReport) -> None:
        """Take in what it says; the rate is what it has finished since the last time, while it had something to do."""
        if self._before is not None and self.loads and report.seconds > self._before[0]:
            passed = report.seconds - self._before[0]
            self._busy_seconds += passed
            # At first the mean since the beginning, then of the last seconds.
            fresh = max(passed / self._busy_seconds, 1 - math.exp(-passed / RATE_SECONDS))
            self.rate += fresh * ((report.finished - self._before[1]) / passed - self.rate)
        self._before = (report.seconds, report.finished)
        self.ready = report.ready
        self.loads = dict(report.shards)
        self.given -= set(report.shards)

    def forget(self, key: str) -> None:
        """The shard is not its business any more."""
        self.given.discard(key)
        self.loads.pop(key, None)

    @property
    def busy(self) -> int:
        return len(self.given) + len(self.loads)

    @property
    def weight(self) -> int:
        return sum(load.weight for load in self.loads.values())

    def seconds(self, usual: float) -> float:
        """How long what it has not begun will last, at its rate, or the usual one while that is unknown."""
        rate = self.rate or usual
        if not self.weight:
            return 0.0
        return self.weight / rate if rate and self.ready else math.inf


class Sharing:
    """Who works on what. Told what happens, it says what to do; nothing else.

    A shard is known by its key from :meth:`moves` giving it until :meth:`ended` or :meth:`failed`.
    """

    def __init__(self, shards: Sequence[ShardRef]) -> None:
        self._waiting = deque(shards)
        self._given: dict[str, ShardRef] = {}
        self._instances: dict[str, _Instance] = {}
        self._holders: dict[str, str] = {}
        """Who was given each shard."""
        self._asked: dict[str, tuple[str, int]] = {}
        """Shards of which a part was asked back: from whom, and for how many."""
        self._done: list[ShardDone] = []
        self._done_items = self._done_failed = 0

    @property
    def finished(self) -> bool:
        """Whether every shard is done."""
        return not self._waiting and not self._given

    @property
    def results(self) -> list[ShardDone]:
        """What came of the shards, and of parts of them, that are done."""
        return self._done

    @property
    def counts(self) -> tuple[int, int]:
        """Items that have their outcome, and those of them that failed, as far as is known."""
        loads = [load for one in self._instances.values() for load in one.loads.values()]
        done = self._done_items + sum(load.done for load in loads)
        return done, self._done_failed + sum(load.failed for load in loads)

    def heard(self, instance: str, report: InstanceReport) -> None:
        """What an instance says of itself. One that is heard of for the first time is taken in."""
        one = self._instances.setdefault(instance, _Instance())
        one.heard(report)
        for key in report.shards:
            if self._holders.get(key) != instance:
                one.forget(key)  # done meanwhile; or another's, since this one was lost for a while
            elif key not in self._asked and report.shards[key].behind:
                self._ends_at(key, report.shards[key].behind)

    def lost(self, instance: str) -> None:
        """An instance's process is gone. For each of its shards :meth:`failed` is called, too."""
        self._instances.pop(instance, None)
        for key in [key for key, asked in self._asked.items() if asked[0] == instance]:
            del self._asked[key]

    def handed_back(self, key: str, pieces: Sequence[ShardRef]) -> None:
        """The answer to a TakeBack: parts of the shard, which wait from now on; none if it gave up nothing.

        Or if it was not heard: then the instance's next report tells where its shard ends, or the shard's own end.
        """
        self._asked.pop(key, None)
        given = self._given.get(key)
        if not pieces and given is not None:
            holder = self._instances.get(self._holders[key])
            if holder is not None and (load := holder.loads.get(key)) is not None:
                holder.loads[key] = replace(load, left=0)  # not asked again before its next report
        if not pieces or given is None or pieces[0].first_item >= given.behind:  # done, or told, meanwhile
            return
        self._ends_at(key, pieces[-1].behind)
        self._given[key] = given.until(pieces[0].first_item)
        self._waiting.extend(pieces)

    def ended(self, key: str, done: ShardDone) -> None:
        """A shard is done, up to the item that its report says; what it has handed back unheard waits again."""
        self._ends_at(key, done.shard.behind)
        del self._given[key]
        self._forget(key)
        self._done.append(done)
        self._done_items += done.shard.items
        self._done_failed += done.failed

    def _ends_at(self, key: str, behind: int) -> None:
        """A shard ends before item ``behind``; if that is earlier than was known, what follows waits."""
        given = self._given[key]
        if behind < given.behind:
            self._given[key] = given.until(behind)
            self._waiting.append(given.from_(behind))

    def failed(self, key: str) -> None:
        """An instance could not go on with a shard; it waits for another."""
        given = self._given.pop(key)
        self._forget(key)
        self._waiting.appendleft(given)

    def _forget(self, key: str) -> None:
        self._asked.pop(key, None)
        if (holder := self._holders.pop(key, "")) in self._instances:
            self._instances[holder].forget(key)

    def moves(self) -> list[Give | TakeBack]:
        """What is to be done now; each is said once."""
        return [*self._gives(), *self._take_backs()]

    def _gives(self) -> list[Give]:
        gives: list[Give] = []
        if self._waiting:
            for name in self._hungry(self._usual_rate)[: len(self._waiting)]:
                shard = self._waiting.popleft()
                self._given[shard.key] = shard
                self._holders[shard.key] = name
                self._instances[name].given.add(shard.key)
                gives.append(Give(name, shard))
        return gives

    def _hungry(self, usual: float) -> list[str]:
        """Instances that are about to have nothing to do, and are not given anything yet; the neediest first."""
        return [
            name
            for *_, name in sorted(
                (one.busy, one.seconds(usual), name)
                for name, one in self._instances.items()
                if one.ready and not one.given and one.busy < SHARDS_AT_ONCE and one.seconds(usual) < HUNGRY_SECONDS
            )
        ]

    def _take_backs(self) -> list[TakeBack]:
        if self._waiting:
            return []
        usual = self._usual_rate
        takers_left = len(self._hungry(usual)) - sum(takers for _, takers in self._asked.values())
        if takers_left <= 0:
            return []
        givers = {name for name, _ in self._asked.values()}
        donors = sorted(
            (
                (one.seconds(usual), name)
                for name, one in self._instances.items()
                if name not in givers
                and one.seconds(usual) > HUNGRY_SECONDS + WORTH_SECONDS
                and any(load.left > 1 for load in one.loads.values())
            ),
            reverse=True,
        )
        backs = []
        for position, (_, name) in enumerate(donors[:takers_left]):
            takers = len(range(position, takers_left, len(donors)))
            one = self._instances[name]
            key, load = max(one.loads.items(), key=lambda found: (found[1].left > 1, found[1].weight))
            self._asked[key] = (name, takers)
            share = _share(one, takers, usual) * one.weight / max(1, load.weight)
            backs.append(TakeBack(name, key, min(1.0, share), takers))
        return backs

    @property
    def _usual_rate(self) -> float:
        """The mean rate of the instances that have one."""
        known = [one.rate for one in self._instances.values() if one.rate]
        return sum(known) / len(known) if known else 0.0


def _share(donor: _Instance, takers: int, usual: float) -> float:
    """What part of its weight it gives up to so many takers of the usual rate, so that all are busy equally long."""
    if not donor.ready:
        return 1.0
    return takers / (takers + (donor.rate / usual if donor.rate and usual else 1.0))
