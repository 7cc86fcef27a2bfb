"""How the shards of a run are distributed among its instances: by load, not by count. Pure bookkeeping.

Shards wait in one queue. An instance is given a shard when it is about to run out of work. Once the queue is empty, the
instance that would be busy longest hands back a part of the work that it has not begun. So an instance that is slow,
starts late, dies or never starts does not delay the others, whatever the shards are like.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tasks.domain.run import ShardDone, ShardRef
from tasks.domain.stop import Stop

SHARDS_PER_INSTANCE = 2
"""Shards that an instance works on at once: while one runs out of items, the other keeps it busy."""
HUNGRY_SECONDS = 1.0
"""An instance with less work left to begin than this is given more."""
WORTH_SECONDS = 1.0
"""Work taken over from another instance must be worth the seconds that the handover may take."""
RATE_SECONDS = 5.0
"""An instance's rate is a mean over about this many seconds."""


@dataclass(frozen=True, slots=True)
class ShardLoad:
    """The progress of an instance with one shard: items (and their weight) not begun, and outcomes so far.

    ``end`` is one past the last item that the instance is to process; 0 if not reported.
    """

    left: int
    weight: int
    done: int
    failed: int
    end: int = 0


@dataclass(frozen=True, slots=True)
class InstanceReport:
    """The state of an instance, as it reports it. ``seconds`` is its own monotonic clock."""

    seconds: float
    ready: bool
    shards: Mapping[str, ShardLoad] = field(default_factory=dict)
    error: str = ""
    """Why it was given up; empty if it was not."""
    cut_off: bool = False
    """Whether it cannot reach the storage at present; ``error`` then gives this as the reason."""
    finished: int = 0
    """Weight of all items that it has finished so far."""
    sick: int = 0
    stopped: Stop | None = None
    """Why it sends no further requests; None while it does."""
    away: str = ""
    """Why the wait for its model server ended, if it was given up for that."""
    outage: str = ""
    """Why its model server takes no requests, while the instance waits for it."""
    outage_seconds: float = 0.0
    """How long this outage has lasted."""


@dataclass(frozen=True, slots=True)
class Give:
    """Let ``instance`` work on ``shard``."""

    instance: str
    shard: ShardRef


@dataclass(frozen=True, slots=True)
class TakeBack:
    """Let ``instance`` hand back about ``share`` of the weight of shard ``key`` that it has not begun."""

    instance: str
    key: str
    share: float
    pieces: int


def run_outage(reports: Iterable[InstanceReport]) -> tuple[str, float]:
    """Why no model server of a run takes requests, and for how many seconds none has; "" and 0 while one does.

    Instances that were given up, or are not ready, do not count.
    """
    left = [one for one in reports if one.ready and not one.error]
    if not left or not all(one.outage for one in left):
        return "", 0.0
    latest = min(left, key=lambda one: one.outage_seconds)
    return latest.outage, latest.outage_seconds


def run_loss(given_up: Mapping[int, str], away: Mapping[int, str]) -> Stop:
    """The stop of a run after all instances were ``given_up``; reasons are by instance number, ``away`` has outages."""
    if set(given_up) <= set(away):
        return Stop(reason="outage", cause=next(iter(away.values())), resumable=True)
    died = next(reason for number, reason in given_up.items() if number not in away)
    cause = f"no instance is left: {died}".split("\n", 1)[0]
    return Stop(reason="no instance", cause=cause, resumable=bool(away))


class _Instance:
    def __init__(self) -> None:
        self.ready = False
        self.rate = 0.0
        """Weight that it has lately finished per second; 0 while unknown."""
        self.loads: dict[str, ShardLoad] = {}
        self.weight = 0
        """Of all items that it has not begun."""
        self.given: set[str] = set()
        self._before: tuple[float, int] | None = None
        self._busy_seconds = 0.0

    def heard(self, report: InstanceReport) -> None:
        """Take in a report. The rate is the weight finished since the last report, while it had work."""
        if self._before is not None and self.loads and report.seconds > self._before[0]:
            passed = report.seconds - self._before[0]
            self._busy_seconds += passed
            # At first the mean since the beginning, later that of the last RATE_SECONDS.
            fresh = max(passed / self._busy_seconds, 1 - math.exp(-passed / RATE_SECONDS))
            self.rate += fresh * ((report.finished - self._before[1]) / passed - self.rate)
        self._before = (report.seconds, report.finished)
        self.ready = report.ready
        self.loads = dict(report.shards)
        self.weight = sum([load.weight for load in self.loads.values()])
        self.given -= set(report.shards)

    def forget(self, key: str) -> None:
        """Drop a shard that it no longer works on."""
        self.given.discard(key)
        if (load := self.loads.pop(key, None)) is not None:
            self.weight -= load.weight

    @property
    def busy(self) -> int:
        return len(self.given) + len(self.loads)

    def seconds(self, usual: float) -> float:
        """How long the work it has not begun will last at its rate, or at the ``usual`` one while that is unknown."""
        rate = self.rate or usual
        if not self.weight:
            return 0.0
        return self.weight / rate if rate and self.ready else math.inf


class Sharing:
    """Which instance works on which shard. It takes in events and decides on moves; the caller carries them out.

    A shard's key is valid from the :meth:`moves` that give the shard until :meth:`ended` or :meth:`failed`.
    """

    def __init__(self, shards: Sequence[ShardRef]) -> None:
        self._waiting = deque(shards)
        self._given: dict[str, ShardRef] = {}
        self._instances: dict[str, _Instance] = {}
        self._holders: dict[str, str] = {}
        """The instance that was given each shard."""
        self._asked: dict[str, tuple[str, int]] = {}
        """Shards of which a part was asked back: from which instance, and for how many others."""
        self._done: list[ShardDone] = []
        self._done_items = self._done_failed = 0

    @property
    def finished(self) -> bool:
        """Whether every shard is done."""
        return not self._waiting and not self._given

    @property
    def results(self) -> list[ShardDone]:
        """The results of the shards, and of parts of them, that are done."""
        return self._done

    @property
    def counts(self) -> tuple[int, int]:
        """The number of items with an outcome, and of those that failed, as far as known."""
        loads = [load for one in self._instances.values() for load in one.loads.values()]
        done = self._done_items + sum(load.done for load in loads)
        return done, self._done_failed + sum(load.failed for load in loads)

    def heard(self, instance: str, report: InstanceReport) -> None:
        """Take in an instance's report; the first one adds the instance."""
        one = self._instances.setdefault(instance, _Instance())
        one.heard(report)
        for key in report.shards:
            if self._holders.get(key) != instance:
                one.forget(key)  # already done, or another's, because this one was lost for a while
            elif key not in self._asked and report.shards[key].end:
                self._ends_at(key, report.shards[key].end)

    def holder(self, key: str) -> str:
        """The instance that was given a shard; empty if none has it at present."""
        return self._holders.get(key, "")

    def lost(self, instance: str) -> list[str]:
        """An instance is lost. Returns its shards, for each of which the caller also calls :meth:`failed`."""
        self._instances.pop(instance, None)
        for key in [key for key, asked in self._asked.items() if asked[0] == instance]:
            del self._asked[key]
        return [key for key, holder in self._holders.items() if holder == instance]

    def handed_back(self, key: str, pieces: Sequence[ShardRef]) -> None:
        """The response to a TakeBack: parts of the shard, which are queued; empty if nothing was handed back.

        Also empty if the response was lost: then the instance's next report, or the shard's result, has the cut.
        """
        self._asked.pop(key, None)
        given = self._given.get(key)
        if not pieces and given is not None:
            holder = self._instances.get(self._holders[key])
            if holder is not None and (load := holder.loads.get(key)) is not None:
                holder.loads[key] = replace(load, left=0)  # not asked again before its next report
        if not pieces or given is None or pieces[0].first_item >= given.end:  # already done, or the cut is known
            return
        self._ends_at(key, pieces[-1].end)
        self._given[key] = given.until(pieces[0].first_item)
        self._waiting.extend(pieces)

    def ended(self, key: str, done: ShardDone) -> None:
        """A shard is done, up to the end in its result. A tail that was handed back unnoticed is queued again."""
        self._ends_at(key, done.shard.end)
        del self._given[key]
        self._forget(key)
        self._done.append(done)
        self._done_items += done.shard.items
        self._done_failed += done.failed

    def _ends_at(self, key: str, end: int) -> None:
        """A shard ends before item ``end``; if that is earlier than known, its tail is queued."""
        given = self._given[key]
        if end < given.end:
            self._given[key] = given.until(end)
            self._waiting.append(given.from_(end))

    def failed(self, key: str) -> None:
        """An instance could not go on with a shard, which returns to the front of the queue.

        The instance gets no other before its next report: it may fail as fast, and does not have to answer.
        """
        given = self._given.pop(key)
        if (one := self._instances.get(self.holder(key))) is not None:
            one.ready = False
        self._forget(key)
        self._waiting.appendleft(given)

    def _forget(self, key: str) -> None:
        self._asked.pop(key, None)
        if (holder := self._holders.pop(key, "")) in self._instances:
            self._instances[holder].forget(key)

    def moves(self) -> list[Give | TakeBack]:
        """The moves to carry out now; each is returned once."""
        usual = self._usual_rate
        hungry = self._hungry(usual)
        gives = [self._give(name) for name in hungry[: len(self._waiting)]]
        return [*gives, *(self._take_backs(usual, len(hungry) - len(gives)) if not self._waiting else ())]

    def _give(self, name: str) -> Give:
        shard = self._waiting.popleft()
        self._given[shard.key] = shard
        self._holders[shard.key] = name
        self._instances[name].given.add(shard.key)
        return Give(name, shard)

    def _hungry(self, usual: float) -> list[str]:
        """Instances that are about to run out of work and have no shard on its way; the neediest first."""
        return [
            name
            for *_, name in sorted(
                (one.busy, one.seconds(usual), name)
                for name, one in self._instances.items()
                if one.ready
                and not one.given
                and one.busy < SHARDS_PER_INSTANCE
                and one.seconds(usual) < HUNGRY_SECONDS
            )
        ]

    def _take_backs(self, usual: float, hungry: int) -> list[TakeBack]:
        takers_left = hungry - sum(takers for _, takers in self._asked.values())
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
        """The mean rate of the instances whose rate is known."""
        known = [one.rate for one in self._instances.values() if one.rate]
        return sum(known) / len(known) if known else 0.0


def _share(donor: _Instance, takers: int, usual: float) -> float:
    """The share of its weight that ``takers`` of the ``usual`` rate take over, so that all are busy equally long."""
    if not donor.ready:
        return 1.0
    return takers / (takers + (donor.rate / usual if donor.rate and usual else 1.0))
