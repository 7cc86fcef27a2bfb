"""One run whose reports are written by hand, in one try or in several."""

from __future__ import annotations

import re
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

from clients.support import run as run_on_loop
from engine.runs import make_run, no_environment
from fakes.reports import owner_of, report_at

from tasks.clients.tables import report_bytes
from tasks.domain.item import Item
from tasks.domain.result import Outcome, Tally
from tasks.domain.run import ShardRef
from tasks.domain.settings import Settings
from tasks.engine.reports import Reporter
from tasks.engine.sent import Sent
from tasks.engine.session import Session

T = TypeVar("T")
FOLDER = "shards/00002"


def ref(first: int, end: int) -> ShardRef:
    return ShardRef(number=2, first_item=first, items=end - first, bytes=0)


def outcome(number: int, message: str = "") -> Outcome:
    return Outcome(number, f"/in/{number}", f"{number}_result.txt", message, not message, bytes_read=1)


def add(reporter: Reporter, found: Outcome) -> None:
    """Give the outcome of an item, whose answers are settled."""
    item = Item(found.number, found.source, found.source, 1, found.result_name, "")
    reporter.add(item, found, Sent(Tally()))


def planned(shard: ShardRef) -> list[Item]:
    numbers = range(shard.first_item, shard.end)
    return [Item(number, f"/in/{number}", f"/in/{number}", 1, f"{number}_result.txt", "") for number in numbers]


def outcomes(first: int, end: int) -> list[Outcome]:
    return [outcome(number) for number in range(first, end)]


def counted(found: Sequence[Outcome]) -> Tally:
    tally = Tally()
    for one in found:
        tally.add(one)
        tally.request(0.01)
    return tally


class Tries:
    """One run below ``folder``, which may be tried again; each try has a session of its own."""

    def __init__(self, folder: Path) -> None:
        self.run = make_run("http://127.0.0.1:1", str(folder / "out"), instances=2)
        self.scratch = folder / "out" / self.run.names.scratch / FOLDER
        self.results = folder / "out" / self.run.names.result_folder

    def session(self, attempt: str) -> Session:
        return Session(self.run.model_copy(update={"attempt": attempt}), Settings(), {}, no_environment, number=0)

    def resumed(self, shard: ShardRef, attempt: str = "aa") -> Reporter:
        """Who takes up a shard in this try."""
        reporter = Reporter(self.session(attempt), shard)
        (self.scratch.parents[2]).mkdir(exist_ok=True)
        run(reporter.resume(planned(shard)))
        return reporter

    def put(self, name: str, found: Sequence[Outcome]) -> None:
        """A file of an earlier time."""
        self.scratch.mkdir(parents=True, exist_ok=True)
        path = self.scratch / name
        path.write_bytes(report_bytes(found, counted(found), owner_of(path)))
        self.write_results(found)

    def write_results(self, found: Sequence[Outcome]) -> None:
        """Their result files, which are empty."""
        self.results.mkdir(exist_ok=True)
        for one in found:
            if one.written:
                (self.results / one.result_name).touch()

    def report(self, name: str) -> tuple[list[int], Tally]:
        """Of this name, whoever wrote it."""
        (path,) = [path for path in self.scratch.iterdir() if _without_writer(path.name) == name]
        found, tally = report_at(path)
        return [one.number for one in found], tally

    @property
    def names(self) -> list[str]:
        return sorted(_without_writer(path.name) for path in self.scratch.iterdir())


def _without_writer(name: str) -> str:
    return re.sub(r"(report-\d+-[0-9a-f]+)-[0-9a-f]{8}\.", r"\1.", name)


def run(work: Coroutine[Any, Any, T]) -> T:
    return run_on_loop(work)


def seen(reporter: Reporter) -> list[int]:
    """The items that have their outcome from earlier."""
    return sorted(reporter.seen)
