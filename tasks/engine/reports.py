"""The outcomes of a shard's items on their way into its report, and those that earlier tries of the run reported.

They are stored in the shard's folder (:attr:`ShardRef.folder`), in files named after the first item of the shard (or
of a piece of it) and the try of the run:

``report-<first>-<attempt>.parquet``
    every outcome of a shard that is done. In distributed mode the name also identifies the writer: a process that was
    taken for lost may still write after another one has done the shard;
``part-<first>-<attempt>-<milliseconds>.parquet``
    a partial report: the outcomes of a few seconds, kept until the report is written;
``cut-<first>-<attempt>-<end>``
    in this try the shard ends before item ``end``: its tail was handed back and belongs to another shard.

The result files that a report names are synced to disk before it is written. The report itself is not: after a power
failure its seal reveals any damage, and its items are sent again.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Collection, Sequence
from contextlib import suppress

from tasks.clients.model_http.http_reply import Stretch
from tasks.clients.storage.failures import Missing, ObjectError
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
    """The outcomes of one shard. ``shard`` may shrink while it is in progress (:meth:`shrink`).

    An outcome is reported once its answers are settled, that is, known to belong to the item's requests. The others
    move to ``doubted`` and are no longer counted.
    """

    def __init__(self, session: Session, shard: ShardRef) -> None:
        self._session = session
        self._scratch = session.output.scratch.name
        self._owner = shard.owner(session.run.task_id)
        self._items: Sequence[Item] = ()
        self.shard = shard
        self._outcomes: list[Outcome] = []
        # Parallel lists instead of tuples, since the garbage collector scans every container of other objects.
        self._unsettled: list[Outcome] = []
        self._unsettled_items: list[Item] = []
        self._unsettled_stretches: list[Stretch | Collection[Stretch]] = []
        self.doubted: list[tuple[Item, Outcome]] = []
        self._fresh: list[Outcome] = []
        self._parts: list[str] = []
        self._whole = ""
        self.digest = ""
        """Digest of the report of the whole shard, once there is one."""
        self._writer = secrets.token_hex(4)
        self._flushing: asyncio.Future[None] | None = None
        self.sent = Tally()
        """Counts requests only."""
        self.seen: set[int] = set()
        """Numbers of the items whose outcome was reported earlier."""
        self.done = self.failed = 0

    @property
    def report_name(self) -> str:
        """Name of the shard's report, relative to the scratch folder."""
        attempt = self._session.run.attempt
        return self.shard.report_name(attempt if self._session.number is None else f"{attempt}-{self._writer}")

    def _name(self, kind: str) -> str:
        return f"{self.shard.folder}/{kind}-{self.shard.first_item}-{self._session.run.attempt}"

    async def resume(self, items: Sequence[Item]) -> None:
        """Read the shard's reports of all tries of the run, and how it was cut in this one.

        ``items`` are the shard's items as planned. Reports that are damaged or foreign are ignored, and so are outcomes
        whose result file, on a local disk, is missing or has another size: those items are sent again. So are items
        that failed after the run was stopped: a stop belongs to the try in which it happened.
        """
        self._items = items
        folder = f"{self._scratch}/{self.shard.folder}"
        names = sorted(await self._session.output.list(folder))
        for name in names:
            if (cut := _CUT.match(name)) and f"{self.shard.folder}/{name}".startswith(f"{self._name('cut')}-"):
                self.shard = self.shard.until(min(self.shard.end, int(cut[3])))
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
            except Missing:  # it was deleted: its shard is done by now
                pass
            else:
                if self._take_in(name, outcomes, tally):
                    self.digest = digest(data)

    def _check(self, outcomes: Sequence[Outcome]) -> None:
        """Raises DamagedFile if the outcomes do not match the planned items."""
        first = self.shard.first_item
        for one in outcomes:
            if first <= one.number < self.shard.end:
                item = self._items[one.number - first]
                if (one.number, one.source, one.result_name) != (item.number, item.source, item.result_name):
                    raise DamagedFile("tells of other items than were planned")

    def _is_stored(self, outcome: Outcome) -> bool:
        name = f"{self._session.result_folder}/{outcome.result_name}"
        return not outcome.written or self._session.output.has(name, outcome.bytes_written)

    def _is_of_others(self, first: int, attempt: str) -> bool:
        """Whether a report, by its name, cannot have items of this shard; it is not read, as there may be hundreds."""
        if first >= self.shard.end:
            return True
        return attempt == self._session.run.attempt and first != self.shard.first_item

    def _take_in(self, name: str, outcomes: Sequence[Outcome], tally: Tally) -> bool:
        """Add the outcomes of a report; whether it covers the whole shard."""
        own = [one for one in outcomes if self.shard.first_item <= one.number < self.shard.end]
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
        """Add one outcome, and the answers that it depends on."""
        self._unsettled.append(outcome)
        self._unsettled_items.append(item)
        self._unsettled_stretches.append(sent.unsettled)
        self._count(outcome)

    async def settle(self) -> None:
        """Wait until the outcomes so far are settled or doubted."""
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
        """Write new outcomes as a partial report every few seconds, until cancelled."""
        while True:
            await asyncio.sleep(self._session.settings.report_seconds)
            if self._unsettled or self._fresh:
                # Shielded, since a cancellation in the middle would leave it half done.
                # If the storage fails now, the shard's report will have these outcomes.
                self._flushing = asyncio.ensure_future(self.flush())
                with suppress(ObjectError):
                    await asyncio.shield(self._flushing)

    async def flush(self) -> None:
        """Write new outcomes once they are settled. Raises ObjectError."""
        await self.settle()
        fresh, self._fresh = self._fresh, []
        self._outcomes += fresh
        name = f"{self._name('part')}-{time.time_ns() // 1_000_000}.parquet"
        self._parts.append(name)
        await self._session.output.sync()
        await self._session.output.write(f"{self._scratch}/{name}", report_bytes(fresh, _counted(fresh), self._owner))

    async def shrink(self, shard: ShardRef) -> None:
        """Let the shard end earlier. Raises ObjectError; nothing is changed then."""
        name = f"{self._name('cut')}-{shard.end}"
        await self._session.output.write(f"{self._scratch}/{name}", b"1")
        self.shard = shard
        for outcome in self._outcomes:
            if outcome.number >= shard.end:  # from an earlier try: another shard reports it now
                self._count(outcome, -1)
        self._outcomes = [outcome for outcome in self._outcomes if outcome.number < shard.end]

    async def finish(self) -> Tally:
        """Write the shard's report, then delete its partial reports."""
        await self.settle()
        if self._flushing is not None:  # wait for it: a partial report must not be written after the deletion
            with suppress(ObjectError):
                await self._flushing
        if not self._session.servers.reuse.allowed:
            self.sent.note(NOTE)
        for note in (*self._session.group.notes, *self._session.servers.warnings):
            self.sent.note(note)
        outcomes = sorted(self._outcomes + self._fresh, key=lambda outcome: outcome.number)
        tally = _counted(outcomes).merge([self.sent])
        await self._session.output.sync()
        data = report_bytes(outcomes, tally, self._owner)
        await self._session.output.write(f"{self._scratch}/{self.report_name}", data)
        self.digest = digest(data)
        with suppress(ObjectError):  # they are removed with the scratch folder at the latest
            await self._session.output.delete_files([f"{self._scratch}/{name}" for name in self._parts])
        return tally

    def whole(self) -> tuple[str, Tally] | None:
        """Name and tally of an earlier report of the whole shard, if there is one."""
        if not self._whole or len(self.seen) != self.shard.items:
            return None
        return self._whole, _counted(self._outcomes).merge([self.sent])


def _counted(outcomes: Sequence[Outcome]) -> Tally:
    tally = Tally()
    for outcome in outcomes:
        tally.add(outcome)
    return tally
