"""One run's state in one process: storage, instances, limits and progress. Created on first use, closed at its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from tasks.clients import clock
from tasks.clients.model_http.connections import Reuse
from tasks.clients.storage.failures import NoSpace, ObjectError, Unreachable
from tasks.clients.storage.output_folder import ROOM_BYTES, OutputFolder
from tasks.clients.storage.storage import Storage
from tasks.domain.credentials import Credentials
from tasks.domain.errors import ModelServerError, ServerAway
from tasks.domain.header import TableMapping
from tasks.domain.instance import GivenEnvironment
from tasks.domain.masking import Masker
from tasks.domain.outage import minutes_text
from tasks.domain.paths import Address, parse_address
from tasks.domain.request import FileForm
from tasks.domain.result import NOT_PROCESSED, STOPPED_BEFORE, not_processed
from tasks.domain.run import PLANNED, SHARDS, STOPPED_BY_HAND, Run, deadline_passed, threshold_passed
from tasks.domain.settings import Settings
from tasks.engine.budget import Budget
from tasks.engine.instances import InstanceGroup
from tasks.engine.joined_rows import JoinedRows
from tasks.engine.progress import progress_of
from tasks.engine.sender import Sender
from tasks.engine.server_output import ServerOutputs, Show
from tasks.engine.servers import ModelServers

if TYPE_CHECKING:
    from tasks.engine.shard import ShardWork

T = TypeVar("T")

REACH_SECONDS = 2.0
"""Interval of checks on a storage that does not respond."""
ROOM_PAUSES_SECONDS = (0.2, 0.5, 1.0, 2.0)
"""Pauses between checks for free space: another process may be filling the disk with a result that will not fit."""
REMOTE_AT_ONCE = 64
"""Most concurrent reads, and most concurrent writes, of remote objects in one process."""


class Session:
    """The state that the shards of one run share in one process. Lives on the engine's event loop.

    ``environment`` supplies the values for the model server when they are needed; ``show`` receives its output lines
    and notices to the user. With a ``number`` the session has only that instance, and other processes have the others;
    without, it has all instances of the run.
    """

    def __init__(
        self,
        run: Run,
        settings: Settings,
        credentials: Mapping[str, Credentials],
        environment: Callable[[], Awaitable[GivenEnvironment]],
        show: Show = lambda line: None,
        number: int | None = None,
    ) -> None:
        self.run = run
        self.number = number
        self.settings = settings
        self.progress = progress_of(run.task_id)
        self.storage = Storage(settings, credentials)
        self.output = OutputFolder(self.storage, run.output_address, run.names.scratch)
        self.result_folder = run.names.result_folder
        self.bytes = Budget(settings.bytes_in_flight)
        # Two semaphores: a reader may wait for bytes that only a writer gives back.
        self.remote_reads = asyncio.Semaphore(REMOTE_AT_ONCE)
        self.remote_writes = asyncio.Semaphore(REMOTE_AT_ONCE)
        self.mapping = TableMapping.of_service(run.service, run.rule) if run.rule is not None else None
        leaf = run.api.file_leaf
        self.form = FileForm(leaf) if leaf is not None else None
        self.joined = JoinedRows(run.api.response)
        self.planned_items = 0
        self.failed_items = 0
        self.stopped = ""
        """Why no further item is sent; empty unless the run is stopped."""
        self.resumable = False
        """Whether the run was stopped for a transient cause, so that it can be resumed after it has published."""
        self.not_started = ""
        """Why no instance of the run could be started; empty unless that is known."""
        self.away = ""
        """Why this process no longer waits for its model server; empty while it does."""
        self.cut_off = ""
        """Why this process cannot do its part, although others may; empty while it can."""
        self.unwritable = ""
        """Why results can no longer be written. Items without an outcome get none, so that a resumed run does them."""
        self._looking_at_output = asyncio.Lock()
        self.halted = False
        """Whether requests in flight are also dropped: the run was stopped by hand, or its deadline has passed."""
        self._by_hand = False
        self._alarm: asyncio.TimerHandle | None = None
        self._stopping = asyncio.Event()
        self._halted = asyncio.Event()
        self.shards: dict[str, ShardWork] = {}
        """Shards in progress, by key."""
        self.finished = 0
        """Total weight of the items that have their outcome from this process."""
        self.storage_share = 0.0
        """Share of an item's time spent on reading and writing it: an exponential moving average."""
        self.when_probing: set[Callable[[], None]] = set()
        """Called when a healthy server accepts no request, so that items from elsewhere in the input are begun."""
        self.workers: set[asyncio.Task[None]] = set()
        """Tasks that process items; :meth:`halt` cancels each once, and they go on with the remaining items."""
        self.preparing_since = 0.0
        self.ready_at = 0.0
        self.servers = ModelServers(run, settings, self.storage, environment)
        self._starting: asyncio.Task[None] | None = None
        self._work: set[asyncio.Future[Any]] = set()
        self._show = show
        self._outputs = ServerOutputs(run, settings, self.storage, self.output, show)
        service = run.service
        self.group = InstanceGroup(
            run.instances if number is None else 1,
            first=number or 0,
            prepare=self.servers.prepare,
            connect=self.servers.connect,
            health=run.config.health,
            timeout_seconds=service.timeout_minutes * 60,
            folder=self.servers.log_folder,
            max_concurrency=service.max_concurrency,
            running=self.servers.running if run.serving == "running" else None,
            sidecar_port=settings.sidecar_port if run.serving == "sidecar" else None,
            on_health=self._note_health,
            lease=self.servers.devices,
            on_log=lambda instance, log: self._outputs.follow(instance, log, self.masker),
            masker=lambda: self.masker,
            outage_seconds=service.outage_minutes * 60,
            on_outage=self._end_for_outage,
            on_absence=self._note_absence,
        )
        self.sender = Sender(self.group, lambda: self.not_processed, self._pause, lambda: self.masker)
        if run.deadline_at is not None:
            self._set_alarm(run.deadline_at - clock.now(), deadline_passed(service.deadline_minutes))

    @property
    def masker(self) -> Masker:
        """Masks the secrets of the run, the model's and the storage's, in texts from outside."""
        return self.servers.masker

    @property
    def reuse(self) -> Reuse:
        """Whether a connection carries more than one request."""
        return self.servers.reuse

    def _set_alarm(self, seconds: float, reason: str) -> None:
        if seconds <= 0:  # at once: a timer would fire after the first items
            self.halt(reason)
        else:
            self._alarm = asyncio.get_running_loop().call_later(seconds, self.halt, reason)

    async def start(self) -> None:
        """Prepare and start the instances, once for all shards; returns early if the run is halted.

        Raises ModelServerError.
        """
        if self.halted or (self.stopped and not self.ready_at):
            return
        self.start_soon()
        assert self._starting is not None
        halted = asyncio.ensure_future(self._halted.wait())
        try:
            await asyncio.wait([self._starting, halted], return_when=asyncio.FIRST_COMPLETED)
        finally:
            halted.cancel()
        if not self.halted:
            self._starting.result()

    def start_soon(self) -> None:
        """Prepare and start the instances, without waiting for them."""
        if self._starting is None:
            self.progress.enter("preparing")
            self.preparing_since = clock.now()
            self._starting = asyncio.create_task(self._start())

    @property
    def start_error(self) -> str:
        """Why no instance could be started; empty if one could, or may still."""
        if self._starting is None or not self._starting.done() or self._starting.cancelled():
            return ""
        return str(self._starting.exception() or "")

    async def _start(self) -> None:
        if self.run.serving == "sidecar":  # it gets its environment elsewhere; the values are needed only for masking
            with suppress(Exception):  # without them, whatever looks like a secret is still masked
                await self.servers.given()
        try:
            await self.group.start()
        except ServerAway as error:
            minutes = minutes_text(self.run.service.outage_minutes * 60)
            self._end_for_outage(f"no model server was there for {minutes}: {str(error).removesuffix('.')}")
            return
        self.ready_at = clock.now()
        self.progress.enter("inferring")

    async def during(self, work: Coroutine[Any, Any, T]) -> T:
        """Run ``work`` as a part of this session: closing the session cancels it."""
        task = asyncio.ensure_future(work)
        self._work.add(task)
        try:
            return await task
        finally:
            task.cancel()
            self._work.discard(task)

    @property
    def lost(self) -> bool:
        """Whether other processes have to take over the rest of this one's work."""
        return self.number is not None and not self.stopped and (self.group.lost or bool(self.cut_off))

    def does_not_reach(self, address: Address) -> None:
        """Note that the storage of a file or object does not respond to this process, even after all retries.

        If the run's input or output is on it, and other processes have instances of the run, this instance is cut off:
        the others go on, until the storage responds again.
        """
        own = [(one.scheme, one.bucket) for one in (self.output.root, parse_address(self.run.service.input_path))]
        if self.number is not None and not self.cut_off and (address.scheme, address.bucket) in own:
            self.cut_off = f"it does not reach {address.scheme}://{address.bucket}."
            looking = asyncio.create_task(self._until_reached(address))
            self._work.add(looking)
            looking.add_done_callback(self._work.discard)

    async def _until_reached(self, address: Address) -> None:
        while True:
            await asyncio.sleep(REACH_SECONDS)
            try:
                await self.storage.read(address, self.settings.max_item_bytes)
            except Unreachable:
                continue
            except ObjectError:
                pass
            self.cut_off = ""
            return

    async def makes_room(self, error: ObjectError, size: int) -> bool:
        """Find out whether a failed write of ``size`` bytes was due to that result, or no result can be written.

        True if the storage was full and no longer is: the write can then be retried.
        """
        async with self._looking_at_output:
            if self.unwritable:
                return False
            if await self.output.takes_more():
                return isinstance(error, NoSpace) and size <= ROOM_BYTES
            for pause in ROOM_PAUSES_SECONDS if isinstance(error, NoSpace) else ():
                await asyncio.sleep(pause)
                if await self.output.takes_more():
                    return True
            self.unwritable = error.cause
            return False

    def note_storage(self, storing_seconds: float, all_seconds: float) -> None:
        """Count the seconds that an item took, and how many of them were spent on reading and writing it."""
        self.storage_share += 0.05 * (storing_seconds / max(all_seconds, 1e-9) - self.storage_share)

    def count_failure(self) -> None:
        """Count a failed item; stops the run if the service's error threshold is exceeded."""
        self.failed_items += 1
        if reason := threshold_passed(self.run.service.error_threshold, self.failed_items, self.planned_items):
            self.stop(reason)

    def stop(self, reason: str) -> None:
        """Send no further request; the remaining items are FAILED, and the run is Failed, for this reason."""
        self.stopped = self.stopped or reason
        self._stopping.set()
        self.group.wake_all()

    def start_nothing(self, reason: str, *, may_pass: bool = False) -> None:
        """Stop because no instance of the run could be started or can go on; ``may_pass``: the cause is transient."""
        self.not_started = self.not_started or reason
        self.resumable = may_pass
        self.stop(reason)

    def halt(self, reason: str = STOPPED_BY_HAND) -> None:
        """Stop, by hand unless a reason is given, and drop what is in flight, which is FAILED like the rest."""
        if not self.halted:
            self.halted = True
            self._by_hand = reason == STOPPED_BY_HAND
            self.stop(reason)
            self._halted.set()
            for worker in self.workers:
                worker.cancel()

    def _note_absence(self, cause: str) -> None:
        """Report that no model server is reachable at the start of the run."""
        if not self.progress.outage_since:
            self.progress.outage_since = clock.now()
            minutes = minutes_text(self.run.service.outage_minutes * 60)
            self._show(f"No model server is there yet ({cause}); the run waits for it, for up to {minutes}.")
        self.progress.outage = cause

    def _note_health(self, sick: int) -> None:
        if self.group.outages.probes:
            for begin in [*self.when_probing]:
                begin()
        self.progress.sick_instances = sick
        if self.stopped:  # the run no longer waits for anything
            self.progress.outage, self.progress.outage_since = "", None
            return
        outage = self.group.outages.current
        if (outage is not None) == (self.progress.outage_since is not None):
            return
        now = clock.now()
        if outage is not None:
            since = now - outage.lasts(time.monotonic())
            self.progress.outage, self.progress.outage_since = outage.cause, since
            self._show(f"The model server takes no request ({outage.cause}); the run waits for it.")
        else:
            seconds = now - (self.progress.outage_since or now)
            self.progress.outage, self.progress.outage_since = "", None
            self._show(f"The model server takes requests again, after {seconds:.0f} s.")

    def _end_for_outage(self, reason: str) -> None:
        """Stop the run, since no model server accepts requests; only give up here if other processes have instances."""
        if self.number is None:
            self.resumable = True
            self.stop(reason)
            self._note_health(self.group.sick)
        else:
            self.away = reason
            self.group.give_up(ModelServerError(reason))

    async def _pause(self, seconds: float) -> None:
        """Wait before a retry; return at once when the run is stopped."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    @property
    def not_processed(self) -> str:
        """Message of an item that is no longer sent; empty unless the run is stopped."""
        if self._by_hand:
            return STOPPED_BEFORE
        if self.not_started:
            return not_processed(self.not_started)
        return f"{NOT_PROCESSED}the run was stopped early because {self.stopped}." if self.stopped else ""

    async def close(self) -> None:
        """Stop every instance and close every connection; returns when no process is left.

        If no instance could be started, and no earlier try of the run has reported anything, nothing can be resumed,
        and the scratch folder is also removed.
        """
        try:
            await self._close()
        finally:
            self.servers.remove_logs()

    async def _close(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        under_way = [*self._work, *([self._starting] if self._starting else [])]
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        await self.group.close()
        await self._outputs.close()
        if self.preparing_since and not self.ready_at and self.number is None and not self.resumable:
            await forget_unused_plan(self.output)
        await self.storage.close()


async def forget_unused_plan(output: OutputFolder) -> None:
    """Remove the scratch folder of a run that has no report of any shard, not even a partial one."""
    with suppress(ObjectError):
        if all(name.rpartition("/")[2] == PLANNED for name in await output.list(f"{output.scratch.name}/{SHARDS}")):
            await output.remove_scratch()
