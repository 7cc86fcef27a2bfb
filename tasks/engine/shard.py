"""One shard: all its items at once, within the limits; reports what came of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import suppress

from tasks.clients.failures import ObjectError
from tasks.clients.tables import read_plan, read_report, report_bytes
from tasks.domain.errors import StorageError
from tasks.domain.item import Item
from tasks.domain.result import Outcome, Tally
from tasks.domain.run import PARTIAL_REPORTS, ShardRef
from tasks.engine.items import process
from tasks.engine.session import Session

READ_AHEAD = 32
"""Items that are read or written while others wait for their answers."""
TABLES_AT_ONCE = 8
MOST_AT_ONCE = 288


async def infer_shard(session: Session, shard: ShardRef) -> Tally:
    """Process the items of a shard that have no outcome yet; returns when its report is written.

    Every few seconds a partial report is written, so that a run that is resumed repeats little. Raises ModelServerError
    if no instance can be started, StorageError if plan or report cannot be read or written.
    """
    scratch = session.output.scratch.name
    try:
        if (done := await _read_report(session, shard.report_name)) is not None:
            return done[1]
        items = read_plan(await session.output.read(f"{scratch}/{shard.plan_name}"))
        reporter = await _Reporter.resume(session, shard)
        if any(not item.error for item in items):
            await session.start()
        todo = iter([item for item in items if item.number not in reporter.seen])
        await _process_all(session, todo, len(items), reporter)
        return await reporter.finish()
    except ObjectError as error:
        raise StorageError(
            f"Plan or report of shard {shard.number} in {session.output.scratch}: {error.cause}"
        ) from None


async def _process_all(session: Session, todo: Iterator[Item], items: int, reporter: _Reporter) -> None:
    at_once = TABLES_AT_ONCE if session.mapping is not None else min(MOST_AT_ONCE, READ_AHEAD + session.group.capacity)

    def not_processed(item: Item) -> Outcome:
        return Outcome(item.number, item.source, item.result_name, session.not_processed, False)

    async def work() -> None:
        worker = asyncio.current_task()
        assert worker is not None
        session.workers.add(worker)
        worker.add_done_callback(session.workers.discard)
        dropped = False
        for item in todo:
            if session.stopped and not item.error:
                outcome = not_processed(item)
            else:
                try:
                    outcome = await process(session, item, reporter.sent)
                except asyncio.CancelledError:
                    if dropped or not session.halted:
                        raise
                    dropped = True  # once it is the run that is halted, twice it is the session that is closed
                    worker.uncancel()
                    outcome = not_processed(item)
                if outcome.message:
                    session.count_failure()
            reporter.add(outcome)

    writing = asyncio.create_task(reporter.write_partials())
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(items, at_once)):
                group.create_task(work())
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)


async def _read_report(session: Session, name: str) -> tuple[list[Outcome], Tally] | None:
    try:
        return read_report(await session.output.read(f"{session.output.scratch.name}/{name}"))
    except ObjectError as error:
        if error.missing:
            return None
        raise


class _Reporter:
    """Outcomes of one shard on their way into its report."""

    def __init__(self, session: Session, shard: ShardRef) -> None:
        self._session = session
        self._shard = shard
        self._outcomes: list[Outcome] = []
        self._earlier = Tally()
        self._parts: list[str] = []
        self._fresh: list[Outcome] = []
        self._flushing: asyncio.Future[None] | None = None
        self.tally = Tally()
        self.sent = Tally()
        """Requests only, in one piece: those under way belong to no partial report yet."""
        self.seen: set[int] = set()

    @classmethod
    async def resume(cls, session: Session, shard: ShardRef) -> _Reporter:
        """A reporter that knows what an earlier try of this shard had reported."""
        reporter = cls(session, shard)
        prefix = shard.partial_name(0).rpartition("-")[0].rpartition("/")[2]
        for name in sorted(await session.output.list(f"{session.output.scratch.name}/{PARTIAL_REPORTS}")):
            if not name.startswith(f"{prefix}-"):
                continue
            found = await _read_report(session, f"{PARTIAL_REPORTS}/{name}")
            if found is None:
                continue
            reporter._parts.append(f"{PARTIAL_REPORTS}/{name}")
            reporter._earlier.merge([found[1]])
            for outcome in found[0]:
                if outcome.number not in reporter.seen:
                    reporter.seen.add(outcome.number)
                    reporter._outcomes.append(outcome)
                    reporter._show(outcome)
                    if outcome.message:
                        session.count_failure()
        return reporter

    def add(self, outcome: Outcome) -> None:
        """Take one outcome."""
        self._fresh.append(outcome)
        self.tally.add(outcome)
        self._show(outcome)

    def _show(self, outcome: Outcome) -> None:
        progress = self._session.progress
        progress.done += 1
        if outcome.message:
            progress.failed += 1

    async def write_partials(self) -> None:
        """Write what is new every few seconds, until cancelled."""
        while True:
            await asyncio.sleep(self._session.settings.report_seconds)
            if self._fresh:
                # Cancelled in the middle, it would be half counted.
                # If the storage fails just now, the shard's own report will have it all.
                self._flushing = asyncio.ensure_future(self._flush())
                with suppress(ObjectError):
                    await asyncio.shield(self._flushing)

    async def _flush(self) -> None:
        fresh, tally = self._fresh, self.tally
        self._fresh, self.tally = [], Tally()
        self._outcomes += fresh
        self._earlier.merge([tally])
        name = f"{self._shard.partial_name(len(self._parts))[:-8]}-{int(time.time() * 1000)}.parquet"
        self._parts.append(name)
        await self._session.output.write(f"{self._session.output.scratch.name}/{name}", report_bytes(fresh, tally))

    async def finish(self) -> Tally:
        """Write the shard's report; then its partial ones are not needed any more."""
        if self._flushing is not None:  # else it could come after it was deleted
            with suppress(ObjectError):
                await self._flushing
        tally = self._earlier.merge([self.tally, self.sent])
        outcomes = sorted(self._outcomes + self._fresh, key=lambda outcome: outcome.number)
        scratch = self._session.output.scratch.name
        await self._session.output.write(f"{scratch}/{self._shard.report_name}", report_bytes(outcomes, tally))
        await self._session.output.delete_files([f"{scratch}/{name}" for name in self._parts])
        return tally
