"""All decisions for a run on several instances: it takes in what happened, and when, and answers with orders.

:meth:`Coordination.direct` is the loop around them. A :class:`Fleet` carries the orders out: on a cluster, or with
instances that are played and a time that is only counted.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Protocol

from tasks.domain.errors import ModelServerError, StorageError, ThresherError
from tasks.domain.run import Plan, RunStopped, ShardDone
from tasks.domain.service import BatchService
from tasks.domain.sharing import Give, InstanceReport, Sharing, TakeBack, run_loss, run_outage
from tasks.domain.stop import Stop, threshold_passed

LOOK_SECONDS = 0.25
"""Interval between two looks at an instance, if there are few; many are looked at less often."""
LOOKS_AT_ONCE = 128
PAUSE_SECONDS = 0.00025
"""Pause between two rounds of decisions, per instance."""
OUTAGE_SECONDS = 300.0
"""How long a storage that no instance reaches is waited for; then the run fails, and can be resumed."""
STOP_SECONDS = 30.0
"""How long a run that is stopped before it had any worker waits for one to account for its items."""
SERVER_SECONDS = 10.0
"""Delay before a shard is given to an instance again after Prefect could not run its task."""
MOST_LOSSES = 10
"""How often a shard may be lost with its instance; after that the run fails."""


@dataclass(frozen=True, slots=True)
class ListWorkers:
    """A question to the cluster. Answer: its workers at present, and what it says of those that do not come."""


@dataclass(frozen=True, slots=True)
class Begin:
    """Let a worker start instance ``number``. Answer: whether it has; not if it is busy with another run."""

    instance: str
    number: int


@dataclass(frozen=True, slots=True)
class LookAt:
    """Ask how an instance is. Answer: its report; None if the worker has no instance of the run any more."""

    instance: str


@dataclass(frozen=True, slots=True)
class StopEarly:
    """Tell an instance to send no further request."""

    instance: str
    stop: Stop


@dataclass(frozen=True, slots=True)
class Drop:
    """Give up the task of shard ``key``, whose instance is lost, so that it is interrupted."""

    key: str


@dataclass(frozen=True, slots=True)
class Warn:
    """Write a warning to the run's log."""

    text: str


@dataclass(frozen=True, slots=True)
class Show:
    """Show how the run is doing."""

    done: int
    failed: int
    sick: int
    outage: str
    outage_seconds: float
    inferring: bool


@dataclass(frozen=True, slots=True)
class Fail:
    """Let the run fail with this error."""

    error: BaseException


Question = ListWorkers | Begin | LookAt | StopEarly | TakeBack
"""Orders that are answered: see :meth:`Coordination.answered`."""
Order = Question | Give | Drop | Warn | Show | Fail


class Fleet(Protocol):
    """The instances of a run, which carries out orders. It passes on to the decisions what comes of them."""

    def do(self, order: Order) -> None:
        """Begin to carry out an order."""

    async def wait(self, pause: float, until: float) -> float:
        """Wait for so many seconds, and then until something happens or that moment comes; the time after it."""


@dataclass(slots=True)
class _Member:
    """An instance, from when its worker is known until it is lost."""

    number: int
    due_at: float
    """When it is asked something again; never while an answer is awaited."""
    begun: bool = False
    stop_sent: Stop | None = None
    report: InstanceReport | None = None


class Coordination:
    """What happens to the instances and shards of a run, and what to do about it. Every moment is passed in.

    ``output`` and ``cluster`` are addresses, for messages.
    """

    def __init__(self, service: BatchService, output: str, planned: Plan, cluster: str, now: float) -> None:
        self._service = service
        self._output = output
        self._items = planned.items
        self._cluster = cluster
        self._sharing = Sharing(planned.shards)
        self._members: dict[str, _Member] = {}
        self._was_ready: set[int] = set()
        self._given_up: dict[int, str] = {}
        self._away: dict[int, str] = {}
        """Instances given up because their model servers were away for too long, with the reasons."""
        self._cut_off: dict[int, float] = {}
        """Instances that cannot reach the storage, and since when."""
        self._losses: Counter[str] = Counter()
        self._later: dict[str, float] = {}
        """When shards return to the queue whose tasks Prefect could not run."""
        self._orders: list[Order] = []
        self._failure: BaseException | None = None
        self._stopped: Stop | None = None
        self._stopped_at: float | None = None
        self._had_workers = False
        self._too_late_at = now + service.timeout_minutes * 60
        self._list_at = now
        """When the workers are listed again; never while the list is awaited."""
        self._detail = ""
        self._due_at = now
        """When to decide again, if nothing happens before."""

    async def direct(self, fleet: Fleet) -> list[ShardDone]:
        """Have every shard processed; returns when all are done. Raises the error that the run fails with."""
        while not self._sharing.finished:
            now = await fleet.wait(self._pause, self._due_at)
            for order in self.decide(now):
                if isinstance(order, Fail):
                    raise order.error
                fleet.do(order)
        return self._sharing.results

    @property
    def instances(self) -> list[str]:
        """The workers that are instances of the run."""
        return list(self._members)

    @property
    def _pause(self) -> float:
        """The shortest time between two rounds: many instances report often, and each round costs more."""
        return min(LOOK_SECONDS, len(self._members) * PAUSE_SECONDS)

    # -- what happens -----------------------------------------------------------------------------------------------

    def stop(self, stop: Stop) -> None:
        """The run is to stop early, whatever else it has stopped for."""
        self._stopped = stop

    def answered(self, question: Question, answer: Any, now: float) -> None:
        """Take in the answer to a question; see there what it is."""
        if isinstance(question, ListWorkers):
            there, self._detail = answer
            self._list_at = now + LOOK_SECONDS
            self._listed(set(there), now)
        elif isinstance(question, TakeBack):
            # If it was lost in the meantime, the shard is another's.
            if self._sharing.holder(question.key) == question.instance:
                self._sharing.handed_back(question.key, answer)
        elif (one := self._members.get(question.instance)) is not None:
            one.due_at = now
            if isinstance(question, StopEarly):
                one.stop_sent = question.stop
            elif isinstance(question, LookAt) and answer is not None:
                self._reported(question.instance, one, answer, now)
            else:  # an instance ends by itself after a long time without a look
                one.begun, one.stop_sent = bool(answer), None
                one.due_at += 0.0 if one.begun else self._interval

    def unanswered(self, question: Question, error: Exception, now: float) -> None:
        """A question had this error in place of an answer."""
        if isinstance(question, ListWorkers):
            self._failure = error
        elif isinstance(question, TakeBack):
            self.answered(question, [], now)  # the shard's result shows what was handed back
        elif (one := self._members.get(question.instance)) is not None:
            one.due_at = now + self._interval
            if not isinstance(error, OSError):  # else gone or cut off: it is listed no longer, or answers again
                self._given_up[one.number] = str(error)

    def ended(self, key: str, done: ShardDone) -> None:
        """A shard is done."""
        self._sharing.ended(key, done)

    def interrupted(self, key: str, error: Exception | None, now: float) -> None:
        """The task of a shard ended early: without an error if its process is gone."""
        if isinstance(error, ThresherError) and not isinstance(error, ModelServerError):
            self._failure = error
            return
        self._losses[key] += 1
        if self._losses[key] > MOST_LOSSES:
            self._failure = error or ModelServerError(
                f"The processes of {self._losses[key]} instances died while they worked on shard {key}."
            )
        elif error is None or isinstance(error, ModelServerError):
            self._sharing.failed(key)  # the instance could not continue
        else:
            self._later[key] = now + SERVER_SECONDS  # Prefect could not begin or end the task: it may recover soon

    def _listed(self, there: Collection[str], now: float) -> None:
        for name in [name for name in self._members if name not in there]:
            number = self._members.pop(name).number
            self._orders += [Drop(key) for key in self._sharing.lost(name) if key not in self._later]
            if number in self._was_ready:
                self._orders.append(Warn(f"instance-{number} lost: its process ({name}) is gone"))
        wanted = self._service.instances
        if len(self._members) < wanted:
            free = sorted(set(range(wanted)) - {one.number for one in self._members.values()})
            for name, number in zip(sorted(set(there) - set(self._members)), free, strict=False):
                self._members[name] = _Member(number, now)
                self._had_workers = True

    def _reported(self, name: str, one: _Member, report: InstanceReport, now: float) -> None:
        self._judge(one.number, report, now)
        if self._stopped is not None:
            if one.stop_sent != self._stopped:
                return  # it is told first
            # It needs no model server to account for unprocessed items.
            report = InstanceReport(seconds=report.seconds, ready=True, shards=report.shards, stopped=report.stopped)
        one.due_at = now + self._interval
        one.report = report
        self._sharing.heard(name, report)

    def _judge(self, number: int, report: InstanceReport, now: float) -> None:
        if report.error and not report.cut_off and number not in self._given_up:
            reason = report.error.split("\n", 1)[0]
            self._orders.append(Warn(f"instance-{number} given up: {reason}"))
            self._given_up[number] = report.error
        if report.away:
            self._away[number] = report.away
        if not report.cut_off:
            self._cut_off.pop(number, None)
        elif number not in self._cut_off:
            self._orders.append(Warn(f"instance-{number} cut off: {report.error}"))
            self._cut_off[number] = now
        if report.ready:
            self._given_up.pop(number, None)
            self._away.pop(number, None)
            self._was_ready.add(number)
        self._stopped = self._stopped or report.stopped

    @property
    def _interval(self) -> float:
        return LOOK_SECONDS * max(1.0, len(self._members) / LOOKS_AT_ONCE)

    # -- what to do -------------------------------------------------------------------------------------------------

    def decide(self, now: float) -> list[Order]:
        """The orders to carry out now, in this order; each is returned once."""
        orders, self._orders = self._orders, []
        for key in [key for key, at in self._later.items() if at <= now]:
            del self._later[key]
            self._sharing.failed(key)
        done, failed = self._sharing.counts
        if not self._sharing.finished:
            self._look_at_stops(failed)
            if (error := self._failed(now)) is not None:
                return [*orders, Fail(error)]
            orders += self._questions(now)
            orders += self._sharing.moves()
        return [*orders, self._standing(done, failed)]

    def _look_at_stops(self, failed: int) -> None:
        """Decide whether to stop the run: by its error threshold, or because no instance is left."""
        if self._stopped is not None:
            return
        if stop := threshold_passed(self._service.error_threshold, failed, self._items):
            self._stopped = stop
        elif self._was_ready and len(self._given_up) == self._service.instances:
            self._stopped = run_loss(self._given_up, self._away)

    def _failed(self, now: float) -> BaseException | None:
        """The error that the run fails with, if it does."""
        instances = self._service.instances
        if self._failure is not None:
            return self._failure
        if self._stopped is not None:
            self._stopped_at = now if self._stopped_at is None else self._stopped_at
            if not self._had_workers and now > self._stopped_at + STOP_SECONDS:
                return RunStopped("Stopped before a worker of the Dask cluster was there: nothing was sent.")
            return None
        if not self._was_ready and len(self._given_up) == instances:
            return ModelServerError(next(iter(self._given_up.values())))
        if not self._was_ready and now > self._too_late_at and not self._members:
            return ModelServerError(
                f"No worker of the Dask cluster {self._cluster} was there within {self._service.timeout_minutes:g} "
                f"minutes. {self._detail}".rstrip()
            )
        all_gone = self._cut_off and len({*self._given_up, *self._cut_off}) == instances
        if all_gone and now - max(self._cut_off.values()) > OUTAGE_SECONDS:
            return StorageError(
                f"No instance has reached the storage for {OUTAGE_SECONDS / 60:g} minutes: {self._output}, or "
                "the run's input. Resume the run when it answers."
            )
        return None

    def _questions(self, now: float) -> list[Order]:
        asked: list[Order] = []
        if self._list_at <= now:
            self._list_at = math.inf
            asked.append(ListWorkers())
        self._due_at = min(now + LOOK_SECONDS, self._list_at)
        for name, one in self._members.items():
            if one.due_at > now:
                self._due_at = min(self._due_at, one.due_at)
                continue
            one.due_at = math.inf
            if not one.begun:
                asked.append(Begin(name, one.number))
            elif self._stopped is not None and one.stop_sent != self._stopped:
                asked.append(StopEarly(name, self._stopped))
            else:
                asked.append(LookAt(name))
        return asked

    def _standing(self, done: int, failed: int) -> Show:
        reports = {one.number: one.report for one in self._members.values() if one.report is not None}
        sick = sum([report.sick for report in reports.values() if not report.error])
        sick += len({*self._given_up, *self._cut_off, *(self._was_ready - reports.keys())})
        outage = run_outage(reports.values()) if self._stopped is None else ("", 0.0)
        return Show(done, failed, min(sick, self._service.instances), *outage, bool(self._was_ready))
