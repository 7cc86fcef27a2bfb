"""One run's state in one process: storage, instances, limits and progress. Created on first use, closed at its end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from tasks.clients import clock
from tasks.clients.storage.failures import ObjectError
from tasks.clients.storage.output_folder import OutputFolder
from tasks.clients.storage.storage import Storage
from tasks.domain.credentials import Credentials
from tasks.domain.errors import ServerAway
from tasks.domain.header import TableMapping
from tasks.domain.instance import GivenEnvironment
from tasks.domain.masking import Masker
from tasks.domain.paths import parse_address
from tasks.domain.request import FileForm
from tasks.domain.run import PLANNED, SHARDS, Run
from tasks.domain.settings import Settings
from tasks.engine.budget import Budget
from tasks.engine.ending import Ending
from tasks.engine.instances import InstanceGroup
from tasks.engine.joined_rows import JoinedRows
from tasks.engine.outage_watch import OutageWatch
from tasks.engine.progress import progress_of
from tasks.engine.reach import Reach
from tasks.engine.sender import Sender
from tasks.engine.server_output import ServerOutputs, Show
from tasks.engine.servers import ModelServers
from tasks.engine.shards import Shards

T = TypeVar("T")

REMOTE_AT_ONCE = 64
"""Most concurrent reads, and most concurrent writes, of remote objects in one process."""


class Session:
    """The state that the shards of one run share in one process. Lives on the engine's event loop.

    ``planned_items`` is the number of items of the run. ``environment`` supplies the values for the model server when
    they are needed; ``show`` receives its output lines and notices to the user. With a ``number`` the session has only
    that instance, and other processes have the others; without, it has all instances of the run.
    """

    def __init__(
        self,
        run: Run,
        settings: Settings,
        credentials: Mapping[str, Credentials],
        environment: Callable[[], Awaitable[GivenEnvironment]],
        planned_items: int = 0,
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
        service = run.service
        self.ending = Ending(service, planned_items, lambda: self.group.end_waiting())
        places = [] if number is None else [self.output.root, parse_address(service.input_path)]
        self.reach = Reach(self.storage, self.output, places, settings.max_item_bytes)
        self.shards = Shards()
        self.preparing_since = 0.0
        """Start of the attempt to have an instance; 0 before it."""
        self.ready_at = 0.0
        self._starting: asyncio.Task[None] | None = None
        self._work: set[asyncio.Future[Any]] = set()
        self._outputs = ServerOutputs(run, settings, self.storage, self.output, show)
        self.servers = ModelServers(run, settings, self.storage, environment, self._outputs)
        outage_seconds = service.outage_minutes * 60
        self.watch = OutageWatch(self.ending, self.progress, show, outage_seconds, shared=number is not None)
        self.group = InstanceGroup(
            range(run.instances) if number is None else [number],
            self.servers,
            self.watch,
            timeout_seconds=service.timeout_minutes * 60,
            max_concurrency=service.max_concurrency,
            outage_seconds=outage_seconds,
        )
        self.sender = Sender(self.group, lambda: self.ending.not_processed, self.ending.pause, lambda: self.masker)
        if run.deadline_at is not None:
            self.ending.set_alarm(run.deadline_at)

    @property
    def masker(self) -> Masker:
        """Masks the secrets of the run, the model's and the storage's, in texts from outside."""
        return self.servers.masker

    async def start(self) -> None:
        """Prepare and start the instances, once for all shards; returns early if the run is halted.

        Raises ModelServerError.
        """
        if self.ending.halted or (self.ending.stopped and not self.ready_at):
            return
        self.start_soon()
        assert self._starting is not None
        await self.ending.unless_halted(self._starting)

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
            self.watch.never_there(self.group, error)
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
        if self.number is None or self.ending.stopped:
            return False
        return self.group.lost or bool(self.reach.cut_off)

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
        self.ending.stop_alarm()
        under_way = [*self._work, *([self._starting] if self._starting else [])]
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        await self.reach.close()
        await self.group.close()
        await self._outputs.close()
        resumable = self.ending.stopped is not None and self.ending.stopped.resumable
        if self.preparing_since and not self.ready_at and self.number is None and not resumable:
            await forget_unused_plan(self.output)
        await self.storage.close()


async def forget_unused_plan(output: OutputFolder) -> None:
    """Remove the scratch folder of a run that has no report of any shard, not even a partial one."""
    with suppress(ObjectError):
        if all(name.rpartition("/")[2] == PLANNED for name in await output.list(f"{output.scratch.name}/{SHARDS}")):
            await output.remove_scratch()
