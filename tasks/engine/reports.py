"""What came of a shard's items, on its way into the shard's report; and what earlier tries had reported of it.

All of it stands in the shard's folder (:attr:`ShardRef.folder`), in files whose names hold the first item of the shard
or part of it, and the try of the run:

``report-<first>-<attempt>.parquet``
    every outcome of a shard that is done. In distributed mode the name holds who wrote it as well: a process that was
    given up for lost may still write, when another one has done the shard;
``part-<first>-<attempt>-<milliseconds>.parquet``
    the outcomes of some seconds, until there is the report;
``cut-<first>-<attempt>-<behind>``
    in this try the shard ends before item ``behind``: what follows was handed back, and is another's.

The result files that a report names are synced to the disk before it is written. The report itself is not: after a loss
of power its seal tells what is left of it, and its items are sent again.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Collection, Sequence
from contextlib import suppress

from tasks.clients.failures import ObjectError
from tasks.clients.http_reply import Stretch
from tasks.clients.tables import read_report, report_bytes
from tasks.domain.errors import DamagedFile
from tasks.domain.item import Item
from tasks.domain.result import Outcome, Tally
from tasks.domain.run import ShardRef
from tasks.domain.seal import digest
from tasks.engine.sent import NONE, Sent, is_doubted, is_settled
from tasks.engine.session import Session

_log = logging.getLogger(__name__)
_REPORTED = re.compile(r"(?:report|part)-(\d+)-([0-9a-f]+)(?:-[0-9a-f]+)?\.parquet\Z")
_CUT = re.compile(r"cut-(\d+)-([0-9a-f]+)-(\d+)\Z")


NOTE = (
    "The model server sent bytes that no request was open for, or answers of another length than it said: what it had "
    "answered on such a connection was sent again, and each request has had a connection of its own since"
)


class Reporter:
    """Outcomes of one shard. ``shard`` may shrink while it is worked on (:meth:`shrink`).

    An outcome is reported once it is settled that the answers are those to the item's requests. The others come to
    ``doubted``, and count no more.
    """

    def __init__(self, session: Session, shard: ShardRef) -> None:
        self._session = session
        self._scratch = session.output.scratch.name
        self._owner = shard.owner(session.run.task_id)
        self._items: Sequence[Item] = ()
        self.shard = shard
        self._outcomes: list[Outcome] = []
        # Lists side by side, since the search for garbage goes through whatever holds more than numbers and texts.
        self._unsettled: list[Outcome] = []
        self._unsettled_items: list[Item] = []
        self._unsettled_stretches: list[Stretch | Collection[Stretch]] = []
        self.doubted: list[tuple[Item, Outcome]] = []
        self._fresh: list[Outcome] = []
        self._parts: list[str] = []
        self._whole = ""
        self.digest = ""
        """Of the report that says all of the shard, once there is one."""
        self._writer = secrets.token_hex(4)
        self._flushing: asyncio.Future[None] | None = None
        self.sent = Tally()
        """Requests only."""
        self.seen: set[int] = set()
        """Items that have their outcome from earlier."""
        self.done = self.failed = 0

    @property
    def report_name(self) -> str:
        """Name of the shard's report, below the scratch folder."""
        attempt = self._session.run.attempt
        return self.shard.report_name(attempt if self._session.number is None else f"{attempt}-{self._writer}")

    def _name(self, kind: str) -> str:
        return f"{self.shard.folder}/{kind}-{self.shard.first_item}-{self._session.run.attempt}"

    async def resume(self, items: Sequence[Item]) -> None:
        """Read what is reported of the shard already, by whatever try of the run, and how it was cut in this one.

        ``items`` are those of the shard as planned. What is damaged, foreign, or of a result file that is not there as
        it was written, counts as not reported: its items are sent again. So are those that failed since the run was
        being stopped: a stop belongs to the try in which it happened.
        """
        self._items = items
        folder = f"{self._scratch}/{self.shard.folder}"
        names = sorted(await self._session.output.list(folder))
        for name in names:
            if (cut := _CUT.match(name)) and f"{self.shard.folder}/{name}".startswith(f"{self._name('cut')}-"):
                self.shard = self.shard.until(min(self.shard.behind, int(cut[3])))
        for name in names:
            reported = _REPORTED.match(name)
            if reported is None or self._is_of_others(int(reported[1]), reported[2]):
                continue
            try:
                data = await self._session.output.read(f"{folder}/{name}")
                outcomes, tally = read_report(data, self._owner)
                self._check(outcomes)
            except DamagedFile as damage:
                _log.warning("report damaged file=%s/%s: it %s", self._session.output.root, f"{folder}/{name}", damage)
                self.sent.note(f"{folder}/{name} {damage}: its items were sent again")
            except ObjectError as error:
                if not error.missing:  # else its shard is done meanwhile
                    raise
            else:
                if self._take_in(name, outcomes, tally):
                    self.digest = digest(data)

    def _check(self, outcomes: Sequence[Outcome]) -> None:
        """Raises DamagedFile for outcomes of items that are not planned like that."""
        first = self.shard.first_item
        for one in outcomes:
            if first <= one.number < self.shard.behind:
                item = self._items[one.number - first]
                if (one.number, one.source, one.result_name) != (item.number, item.source, item.result_name):
                    raise DamagedFile("tells of other items than were planned")

    def _is_stored(self, outcome: Outcome) -> bool:
        name = f"{self._session.result_folder}/{outcome.result_name}"
        return not outcome.written or self._session.output.has(name, outcome.bytes_written)

    def _is_of_others(self, first: int, attempt: str) -> bool:
        """Whether a report or a part of one can have no item of this shard: there may be hundreds of them."""
        if first >= self.shard.behind:
            return True
        return attempt == self._session.run.attempt and first != self.shard.first_item

    def _take_in(self, name: str, outcomes: Sequence[Outcome], tally: Tally) -> bool:
        """Take what a report tells; whether it is one that says all of the shard."""
        own = [one for one in outcomes if self.shard.first_item <= one.number < self.shard.behind]
        fresh = [one for one in own if one.final and one.number not in self.seen and self._is_stored(one)]
        whole = bool(fresh) and len(fresh) == len(outcomes) == self.shard.items and name.startswith("report-")
        if whole:
            self._whole = f"{self.shard.folder}/{name}"
        if f"{self.shard.folder}/{name}".startswith(f"{self._name('part')}-"):
            self._parts.append(f"{self.shard.folder}/{name}")
        if fresh and len(own) == len(outcomes):
            self.sent.merge([tally.requests_only()])
        for outcome in fresh:
            self.seen.add(outcome.number)
            self._outcomes.append(outcome)
            self._count(outcome)
        return whole

    def add(self, item: Item, outcome: Outcome, sent: Sent) -> None:
        """Take one outcome, and what it depends on."""
        self._unsettled.append(outcome)
        self._unsettled_items.append(item)
        self._unsettled_stretches.append(sent.unsettled)
        self._count(outcome)

    async def settle(self) -> None:
        """Wait until it is known what to think of each outcome so far."""
        if not self._unsettled:
            return
        await self._session.group.settle()
        found = zip(self._unsettled_items, self._unsettled, self._unsettled_stretches, strict=True)
        self._unsettled_items, self._unsettled, self._unsettled_stretches = [], [], []
        for item, outcome, stretches in found:
            if stretches is NONE:
                self._fresh.append(outcome)
            elif is_doubted(stretches):
                self.doubted.append((item, outcome))
                self._count(outcome, -1)
            elif is_settled(stretches):
                self._fresh.append(outcome)
            else:
                self._unsettled_items.append(item)
                self._unsettled.append(outcome)
                self._unsettled_stretches.append(stretches)

    def _count(self, outcome: Outcome, by: int = 1) -> None:
        progress = self._session.progress
        progress.done += by
        self.done += by
        if outcome.message:
            progress.failed += by
            self.failed += by

    async def write_parts(self) -> None:
        """Write what is new every few seconds, until cancelled."""
        while True:
            await asyncio.sleep(self._session.settings.report_seconds)
            if self._unsettled or self._fresh:
                # Cancelled in the middle, it would be half counted.
                # If the storage fails just now, the shard's own report will have it all.
                self._flushing = asyncio.ensure_future(self.flush())
                with suppress(ObjectError):
                    await asyncio.shield(self._flushing)

    async def flush(self) -> None:
        """Write what is new, once it is settled. Raises ObjectError."""
        await self.settle()
        fresh, self._fresh = self._fresh, []
        self._outcomes += fresh
        name = f"{self._name('part')}-{time.time_ns() // 1_000_000}.parquet"
        self._parts.append(name)
        await self._session.output.sync()
        await self._session.output.write(f"{self._scratch}/{name}", report_bytes(fresh, _counted(fresh), self._owner))

    async def shrink(self, shard: ShardRef) -> None:
        """From now on the shard ends earlier. Raises ObjectError; then nothing has changed."""
        name = f"{self._name('cut')}-{shard.behind}"
        await self._session.output.write(f"{self._scratch}/{name}", b"1")
        self.shard = shard
        for outcome in self._outcomes:
            if outcome.number >= shard.behind:  # from an earlier try: now another's to report
                self._count(outcome, -1)
        self._outcomes = [outcome for outcome in self._outcomes if outcome.number < shard.behind]

    async def finish(self) -> Tally:
        """Write the shard's report; then its partial ones are not needed any more."""
        await self.settle()
        if self._flushing is not None:  # else it could come after it was deleted
            with suppress(ObjectError):
                await self._flushing
        if not self._session.reuse.allowed:
            self.sent.note(NOTE)
        for note in self._session.group.notes:
            self.sent.note(note)
        outcomes = sorted(self._outcomes + self._fresh, key=lambda outcome: outcome.number)
        tally = _counted(outcomes).merge([self.sent])
        await self._session.output.sync()
        data = report_bytes(outcomes, tally, self._owner)
        await self._session.output.write(f"{self._scratch}/{self.report_name}", data)
        self.digest = digest(data)
        with suppress(ObjectError):  # they go with the scratch folder
            await self._session.output.delete_files([f"{self._scratch}/{name}" for name in self._parts])
        return tally

    def whole(self) -> tuple[str, Tally] | None:
        """Name and tally of a report that says all of the shard already, if there is one."""
        if not self._whole or len(self.seen) != self.shard.items:
            return None
        return self._whole, _counted(self._outcomes).merge([self.sent])


def _counted(outcomes: Sequence[Outcome]) -> Tally:
    tally = Tally()
    for outcome in outcomes:
        tally.add(outcome)
    return tally
