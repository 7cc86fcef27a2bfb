"""What stands in for storage and for instances in simulate.py: a folder that keeps sizes only, played instances."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from tasks.clients.storage.failures import Missing
from tasks.clients.storage.output_folder import OutputFolder
from tasks.clients.tables import report_bytes
from tasks.domain.coordination import Coordination, Drop, ListWorkers, LookAt, Order, Question, Show, Warn
from tasks.domain.paths import parse_address, result_name
from tasks.domain.result import Outcome, Tally
from tasks.domain.run import Plan, Run, ShardDone, ShardRef
from tasks.domain.service import BatchService
from tasks.domain.sharing import Give, InstanceReport, ShardLoad, TakeBack

HANDING_OVER_SECONDS = 1.0
REPLACING_SECONDS = 60.0


def name_of(number: int) -> str:
    """Path of an item below the input folder."""
    return f"{number // 10_000:06d}/photo-{number:010d}.jpg"


class Listing:
    """A storage that holds nothing but the names of so many files of about ``size`` bytes."""

    def __init__(self, items: int, size: int) -> None:
        self._items = items
        self._size = size

    async def is_file(self, _: Any) -> bool:
        """Whether an address is a file: it is a folder."""
        return False

    async def list(self, _: Any) -> AsyncIterator[tuple[str, int]]:
        """Every file, in order."""
        for number in range(self._items):
            yield name_of(number), self._size // 2 + number * 7919 % self._size


class Nowhere(OutputFolder):
    """Counts what is written, and keeps the plan of the largest shard only.

    A report is made when it is read, and the seconds which that takes are counted apart: instances would have written
    it.
    """

    def __init__(self, run: Run) -> None:
        self._input = f"{run.service.input_path}/"
        self.task_id = run.task_id
        self.root = parse_address(run.output)
        self.scratch = self.root.child(run.names.scratch)
        self.files: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self.largest_plan = b""
        self.reports: dict[str, ShardRef] = {}
        self.reads = 0
        self.making_seconds = 0.0

    def count(self, kind: str, size: int, files: int = 1) -> None:
        """Note that something was written."""
        self.files[kind] += files
        self.bytes[kind] += size

    async def make(self) -> None:
        """Make the folder."""

    async def sync(self) -> None:
        """Nothing is written."""

    async def write(self, relative: str, data: bytes) -> None:
        """Count a file."""
        kind = "summary" if relative.endswith("summary.json") else relative.rpartition("/")[2]
        self.count(kind, len(data))
        if kind == "plan.parquet" and len(data) > len(self.largest_plan):
            self.largest_plan = data

    async def read(self, relative: str) -> bytes:
        """A report; there is nothing else."""
        shard = self.reports.get(relative)
        if shard is None:
            raise Missing("There is no such file.")
        started = time.process_time()
        data = report_bytes(*self.outcomes(shard), shard.owner(self.task_id))
        self.reads += 1
        self.making_seconds += time.process_time() - started
        if self.files["report"] < len(self.reports):
            self.count("report", len(data))
        return data

    def outcomes(self, shard: ShardRef) -> tuple[list[Outcome], Tally]:
        """What came of a shard; one item in a thousand has failed."""
        outcomes = []
        tally = Tally()
        for number in range(shard.first_item, shard.end):
            name = name_of(number)
            message = "" if number % 1000 else "The model answered HTTP 500: no reason"
            outcomes.append(Outcome(number, self._input + name, result_name(name), message, True, 0, 0, 40960, 300))
            tally.failed += bool(message)
        tally.successful = len(outcomes) - tally.failed
        tally.requests = len(outcomes)
        return outcomes, tally

    @asynccontextmanager
    async def stream(self, relative: str) -> AsyncIterator[Any]:
        """A writer that counts."""
        self.count("manifest", 0)
        yield _Writer(self)

    async def remove_scratch(self) -> None:
        """Remove plan and reports."""


class _Writer:
    def __init__(self, folder: Nowhere) -> None:
        self._folder = folder

    async def write(self, data: bytes) -> None:
        self._folder.count("manifest", len(data), 0)


@dataclass
class Part:
    """A shard, or a part of one, that a played instance works on; item ``at`` is the next one."""

    ref: ShardRef
    at: float


@dataclass
class PlayedInstance:
    """Works on so many items a second, all of which weigh the same; what it reports is for real."""

    rate: float
    item_weight: int
    ready_at: float = 0.0
    lost_at: float = float("inf")
    parts: dict[str, Part] = field(default_factory=dict)
    arriving: list[tuple[float, ShardRef]] = field(default_factory=list)
    finished: float = 0.0
    now: float = 0.0

    def advance(self, now: float) -> list[ShardDone]:
        """Work until this moment; the shards that are done by then."""
        done = []
        for found in [found for found in self.arriving if found[0] <= now]:
            self.arriving.remove(found)
            self.parts[found[1].key] = Part(found[1], found[1].first_item)
            if len(self.parts) == 1:
                self.now = max(self.now, found[0])
        able = self.rate * max(0.0, now - max(self.now, self.ready_at))
        self.now = now
        for key, part in list(self.parts.items()):
            doing = min(able, part.ref.end - part.at)
            part.at += doing
            self.finished += doing
            able -= doing
            if part.ref.end - part.at > 1e-6:
                break
            del self.parts[key]
            ref = part.ref
            done.append(
                ShardDone(
                    shard=ref, report=ref.report_name("simulate"), successful=ref.items, failed=0, started_at=1.0,
                    ended_at=2.0, preparing_since=1.0, ready_at=1.0,
                )
            )  # fmt: skip
        return done

    def report(self) -> InstanceReport:
        """What it says of itself."""
        loads = {}
        for key, part in self.parts.items():
            left = int(part.ref.end - part.at)
            done = part.ref.items - left
            loads[key] = ShardLoad(left, left * self.item_weight, done, 0, part.ref.end)
        finished = int(self.finished * self.item_weight)
        return InstanceReport(seconds=self.now, ready=True, shards=loads, finished=finished)

    def hand_back(self, key: str, share: float, pieces: int) -> list[ShardRef]:
        """Parts of a shard that it has not begun."""
        part = self.parts.get(key)
        left = int(part.ref.end - part.at) - 1 if part is not None else 0
        given = min(left, max(1, round(share * (left + 1))))
        if part is None or left < 1:
            return []
        first, end = part.ref.end - given, part.ref.end
        part.ref = part.ref.until(first)
        pieces = min(pieces, given)
        cuts = [first + given * place // pieces for place in range(pieces)] + [end]
        number = part.ref.number
        return [
            ShardRef(number=number, first_item=one, items=other - one, bytes=(other - one) * self.item_weight)
            for one, other in pairwise(cuts)
        ]


class PlayedFleet:
    """Played instances, of which each that is lost is replaced, and a time that is counted.

    ``rounds`` has the CPU seconds of each round of decisions; what is played is off that clock.
    """

    def __init__(self, service: BatchService, planned: Plan, instances: dict[str, PlayedInstance]) -> None:
        # More instances than a service may have.
        service = service.model_copy(update={"instances": len(instances)})
        self.decisions = Coordination(service, service.output_path, planned, "tcp://played", 0.0)
        self.instances = instances
        self.now = 0.0
        self.rounds: list[float] = []
        self.gives = self.taken_back = self.looks = 0
        self._questions: list[Question] = []
        self._dropped: list[str] = []
        self._began: float | None = None

    async def wait(self, pause: float, until: float) -> float:
        """Count the time on, and answer what was asked."""
        if self._began is not None:
            self.rounds.append(time.process_time() - self._began)
        self.now = max(self.now + pause, self.now if self._questions else until)
        answers = [(question, *self._answer(question)) for question in self._questions]
        dropped, self._questions, self._dropped = self._dropped, [], []
        self._began = time.process_time()
        for key in dropped:
            self.decisions.interrupted(key, None, self.now)
        for question, answer, ended in answers:
            for done in ended:
                self.decisions.ended(done.shard.key, done)
            if isinstance(answer, OSError):
                self.decisions.unanswered(question, answer, self.now)
            else:
                self.decisions.answered(question, answer, self.now)
        return self.now

    def do(self, order: Order) -> None:
        """Note an order, to be carried out in the next wait."""
        match order:
            case Give(instance, shard):
                self.gives += 1
                self.instances[instance].arriving.append((self.now + HANDING_OVER_SECONDS, shard))
            case Drop(key):
                self._dropped.append(key)
            case Warn() | Show():
                pass
            case _:
                self._questions.append(order)

    def _answer(self, question: Question) -> tuple[Any, list[ShardDone]]:
        """The answer, and the shards that are done by then."""
        if isinstance(question, ListWorkers):
            for name, one in self.instances.items():
                if self.now >= one.lost_at:
                    ready_at = self.now + REPLACING_SECONDS
                    self.instances[name] = PlayedInstance(one.rate, one.item_weight, ready_at, now=self.now)
            return ([name for name, one in self.instances.items() if one.ready_at <= self.now], ""), []
        one = self.instances[question.instance]
        if not one.ready_at <= self.now < one.lost_at:
            return OSError("lost"), []
        if isinstance(question, TakeBack):
            self.taken_back += 1
            return one.hand_back(question.key, question.share, question.pieces), []
        if isinstance(question, LookAt):
            self.looks += 1
            ended = one.advance(self.now)
            return one.report(), ended
        return True, []
