"""One shard: processes its items concurrently, within the limits, and reports their outcomes."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress

from tasks.clients import clock
from tasks.clients.storage.failures import ObjectError, Unreachable
from tasks.domain.errors import DamagedFile, ModelServerError, StorageError
from tasks.domain.item import Item
from tasks.domain.result import Outcome, Tally
from tasks.domain.run import ShardDone, ShardRef
from tasks.domain.shard import weight
from tasks.domain.sharing import ShardLoad
from tasks.engine.collector import rare_collections
from tasks.engine.items import process
from tasks.engine.reports import Reporter
from tasks.engine.sent import Sent
from tasks.engine.session import Session
from tasks.engine.stored_plan import read_part
from tasks.engine.supply import Supply

READ_AHEAD = 32
"""Items that may be read or written while others wait for their answers."""
TABLES_AT_ONCE = 8
MOST_WAITING = 64
"""Most tables that may wait for a check of their answers, in addition to those in progress."""
MOST_PROBES = 64
"""Most items that are begun from elsewhere in the shard while a healthy server has refused every request."""
MOST_AT_ONCE = 288
MOST_STORING = 0.95
"""Upper bound of the share of time spent on storage, as used for the number of items begun for an instance."""


async def work_on(session: Session, shard: ShardRef) -> ShardDone:
    """Process one shard in a session. Raises ModelServerError, StorageError."""
    started_at = clock.now()
    with rare_collections():
        done, report, digest, tally = await session.during(infer_shard(session, shard))
    return ShardDone(
        shard=done,
        report=report,
        digest=digest,
        successful=tally.successful,
        failed=tally.failed,
        instance=session.number or 0,
        started_at=started_at,
        ended_at=clock.now(),
        preparing_since=session.preparing_since,
        ready_at=session.ready_at,
        deaths=session.group.deaths,
        stopped=session.ending.stopped,
    )


async def infer_shard(session: Session, shard: ShardRef) -> tuple[ShardRef, str, str, Tally]:
    """Process the items of a shard that have no outcome yet; returns when its report is written.

    The result is the shard (shorter if a part was handed back), the name and digest of its report, and the tally.
    Every few seconds a partial report is written, so that a resumed run repeats little. Raises ModelServerError if no
    instance can be started, or if this process's only instance is lost or cut off while others may go on; StorageError
    if the plan or a report cannot be read or written.
    """
    try:
        items = await _planned(session, shard)
        reporter = Reporter(session, shard)
        await reporter.resume(items)
        for _ in range(reporter.failed):
            session.ending.count_failure()
        if (found := reporter.whole()) is not None:
            return reporter.shard, found[0], reporter.digest, found[1]
        end = reporter.shard.end
        todo = [item for item in items if item.number < end and item.number not in reporter.seen]
        if any(not item.error for item in items):
            await session.start()
        work = ShardWork(session, reporter, todo)
        await work.run()
        tally = await reporter.finish()
        return reporter.shard, reporter.report_name, reporter.digest, tally
    except ObjectError as error:
        if isinstance(error, Unreachable):
            session.reach.does_not_reach(session.output.scratch.child(shard.plan_name))
        if session.lost:
            raise _loss(session) from None
        raise StorageError(
            f"Plan or report of shard {shard.number} in {session.output.scratch}: {error.cause}"
        ) from None


async def _planned(session: Session, shard: ShardRef) -> list[Item]:
    try:
        data = await session.output.read(f"{session.output.scratch.name}/{shard.plan_name}")
        session.output.join()
        return read_part(session.run, shard, data)
    except DamagedFile as damage:
        raise StorageError(f"{session.output.scratch.child(shard.plan_name)} {damage}. Resume the run.") from None


def _loss(session: Session) -> ModelServerError:
    return ModelServerError(f"Instance {session.number} is lost: {session.reach.cut_off or session.group.loss}")


class ShardWork:
    """A shard in progress; items that are not begun yet may be handed back."""

    def __init__(self, session: Session, reporter: Reporter, todo: list[Item]) -> None:
        self._session = session
        self.reporter = reporter
        self.supply = Supply(reporter.shard, todo)
        self._group: asyncio.TaskGroup | None = None
        self._working = 0
        self._handing_back = asyncio.Lock()
        self._lost = False
        self._again: set[int] = set()
        """Items that are sent again because one of their answers was doubted."""

    async def run(self) -> None:
        """Process the items; returns when each has its outcome or is handed back."""
        session, writing = self._session, asyncio.create_task(self.reporter.write_parts())
        session.joined.when_waiting.add(self._fill_more)
        session.watch.when_probing.add(self._fill_more)
        try:
            with session.shards.has(self.supply.shard.key, self):
                while self._left and not self._lost:
                    async with asyncio.TaskGroup() as self._group:
                        self._fill()
                    async with self._handing_back:  # items are left if a hand-back could not be stored
                        pass
                    await self.reporter.settle()
        finally:
            session.joined.when_waiting.discard(self._fill_more)
            session.watch.when_probing.discard(self._fill_more)
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
        if self._lost:
            with suppress(ObjectError):  # other processes repeat what is not reported
                await self.reporter.flush()
            if session.reach.unwritable:
                raise StorageError(
                    f"No result can be written to {session.output.root} any more: {session.reach.unwritable} "
                    "What was done is kept; a resumed run does the rest."
                )
            raise _loss(session)

    @property
    def load(self) -> ShardLoad:
        """The items that are not begun yet, and the outcomes so far."""
        reporter, supply = self.reporter, self.supply
        return ShardLoad(supply.left, supply.weight, reporter.done, reporter.failed, reporter.shard.end)

    @property
    def _left(self) -> int:
        """Number of items that are not begun yet, or have to be sent again."""
        return self.supply.left + len(self.reporter.doubted)

    @property
    def _at_once(self) -> int:
        session = self._session
        files = min(MOST_AT_ONCE, READ_AHEAD + session.group.capacity)
        most = files if session.mapping is None else TABLES_AT_ONCE
        if session.number is not None:
            # Items that are begun cannot be handed back: begin only as many as the instance takes soon, and those that
            # are read or written while it works.
            at_instance = 1 - min(MOST_STORING, session.shards.storage_share)
            most = min(most, max(2, math.ceil(2 * session.group.limit / at_instance / max(1, len(session.shards)))))
        return most + min(MOST_WAITING, session.joined.waiting) + min(MOST_PROBES, session.group.outages.probes)

    def _fill_more(self) -> None:
        if self._working:  # else the shard has not begun, or has ended
            self._fill()

    def _fill(self) -> None:
        assert self._group is not None
        while not self._lost and self._left and self._working < self._at_once:
            self._working += 1
            self._group.create_task(self._work())

    async def _work(self) -> None:
        worker = asyncio.current_task()
        assert worker is not None
        session = self._session
        session.ending.cancels(worker)
        dropped = False
        # Only where no other process can have written a result for the same item, and deleting costs no request.
        alone = session.number is None and session.output.root.scheme == "local"
        try:
            while not self._lost and self._working <= self._at_once and (item := self._next()) is not None:
                sent = Sent(self.reporter.sent)
                try:
                    outcome = await self._outcome(item, sent)
                except asyncio.CancelledError:
                    if dropped or not session.ending.halted:
                        raise
                    dropped = True  # the first cancellation halts the run, a second one closes the session
                    worker.uncancel()
                    outcome = self._not_processed(item)
                if outcome.message and (session.lost or session.reach.unwritable):
                    self._lost = True  # other processes may succeed, or this run when it is resumed
                    return
                if alone and not outcome.written:
                    await self._delete_result(item)  # of an earlier try that was killed before it reported the item
                self.reporter.add(item, outcome, sent)
                session.shards.finish(weight(item))
                self._fill()
        finally:
            self._working -= 1

    def _next(self) -> Item | None:
        """The next item to send; None if no item is left."""
        if not self.reporter.doubted:
            return self.supply.take(self._session.group.outages.probes)
        item, outcome = self.reporter.doubted.pop()
        self._session.shards.finish(-weight(item))
        self._session.ending.count_failure(-bool(outcome.message))
        self._again.add(item.number)
        return item

    async def _outcome(self, item: Item, sent: Sent) -> Outcome:
        session = self._session
        if item.number in self._again:  # its result may be another item's answer, and the item may FAIL this time
            await self._delete_result(item)
        if session.ending.stopped and not item.error:
            return self._not_processed(item)
        outcome = await process(session, item, sent)
        if outcome.message and not session.lost:
            session.ending.count_failure()
        if outcome.message and session.ending.stopped and not item.error:
            # It may have failed only because of the stop, so the run's next try, if there is one, sends it again.
            outcome = outcome._replace(final=False)
        return outcome

    async def _delete_result(self, item: Item) -> None:
        """Delete the result of an item that must have none.

        Nothing is deleted once the plan is gone: the run has then published another process's outcome of the item. In a
        folder shared with other runs' results, only results of doubted items are deleted.
        """
        output = self._session.output
        if self._session.run.task_id not in self._session.result_folder and item.number not in self._again:
            return
        with suppress(ObjectError):
            await output.size(f"{output.scratch.name}/{self.supply.shard.plan_name}")
            await output.delete_files([f"{self._session.result_folder}/{item.result_name}"])

    def _not_processed(self, item: Item) -> Outcome:
        message = self._session.ending.not_processed
        return Outcome(item.number, item.source, item.result_name, message, False, final=False)

    async def hand_back(self, share: float, pieces: int) -> list[ShardRef]:
        """Hand back the last items that are not begun yet, so that others do them; stores where the shard now ends."""
        async with self._handing_back:
            before = self.supply.shard
            refs = self.supply.hand_back(share, pieces)
            if not refs:
                return []
            try:
                await self.reporter.shrink(self.supply.shard)
            except ObjectError:
                self.supply.take_again(refs, before)
                return []
            return refs
