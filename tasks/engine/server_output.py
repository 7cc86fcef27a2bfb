"""Model server output, and where it goes: Logs tab, output folder, log store."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from tasks.clients.logs.log_export import LogExporter
from tasks.clients.logs.log_store import LogStore, LogStream
from tasks.clients.processes.output_follower import OutputFollower
from tasks.clients.storage.failures import ObjectError
from tasks.clients.storage.output_folder import OutputFolder
from tasks.clients.storage.storage import Storage
from tasks.domain.errors import StorageError
from tasks.domain.masking import Masker
from tasks.domain.run import Run
from tasks.domain.server_log import KeptLines, LineBudget, LogRecord, stream_name
from tasks.domain.settings import Settings

BURST_LINES = 200
"""Lines that may go to the Logs tab at once; model servers print many at their start."""
SHOWN_CHARACTERS = 2_000
"""Longer lines are truncated in the Logs tab."""
PART_BYTES = 8 << 20

_log = logging.getLogger(__name__)

Show = Callable[[str], None]


class FullText:
    """The output of an instance next to the results: ``instance-0.log``, ``instance-0_1.log`` and so on."""

    def __init__(self, output: OutputFolder, folder: str, instance: int) -> None:
        self._output = output
        self._folder = folder
        self._name = f"instance-{instance}"
        self._lines: list[bytes] = []
        self._size = 0
        self._part: int | None = None
        self._failed = False

    async def add(self, lines: Sequence[str]) -> None:
        """Add lines; they are written once there are enough for a part."""
        for line in lines:
            data = line.encode("utf-8", "replace") + b"\n"
            self._size += len(data)
            self._lines.append(data)
        if self._size >= PART_BYTES:
            await self._write()

    async def close(self) -> None:
        """Write the remaining lines."""
        if self._lines:
            await self._write()

    async def _write(self) -> None:
        data = b"".join(self._lines)
        self._lines, self._size = [], 0
        if self._failed:
            return
        try:
            if self._part is None:  # earlier tries of the run may have written parts
                there = await self._output.list(self._folder)
                self._part = sum(name.startswith((f"{self._name}.", f"{self._name}_")) for name in there)
            suffix = f"_{self._part}" if self._part else ""
            await self._output.write(f"{self._folder}/{self._name}{suffix}.log", data)
            self._part += 1
        except ObjectError as error:  # a lost log must not fail items
            self._failed = True
            _log.warning("output of %s not kept folder=%s cause=%s", self._name, self._folder, error.cause)


class ServerOutputs:
    """The output of all instances of one run in one process."""

    def __init__(self, run: Run, settings: Settings, storage: Storage, output: OutputFolder, show: Show) -> None:
        self._run = run
        self._settings = settings
        self._output = output
        self._show = show
        self._instances: dict[int, tuple[OutputFollower, ServerOutput]] = {}
        self._store: LogStore | None = None
        self._exporter: LogExporter | None = None
        self._pruning: asyncio.Task[None] | None = None
        if run.service.runtime_log_output:
            self._store = LogStore(storage, settings.log_store)
            if settings.log_otlp_endpoint:
                self._exporter = LogExporter(settings.log_otlp_endpoint, run.service.name, run.task_id)

    def follow(self, instance: int, path: Path, masker: Masker) -> None:
        """Follow the file of an instance's output, across restarts of its server."""
        if instance in self._instances:
            return
        if self._store is not None and self._pruning is None:
            self._pruning = asyncio.create_task(self._prune(self._store))
        run = self._run
        stream = LogStream(self._store, run.service.name, stream_name(run.task_id, instance)) if self._store else None
        full = FullText(self._output, run.names.logs, instance)
        output = ServerOutput(run, self._settings, instance, self._show, full, stream, self._exporter)
        self._instances[instance] = (OutputFollower(path, masker, output.take), output)

    async def close(self) -> None:
        """Forward the remaining output of all instances; remove old records from the log store."""
        await asyncio.gather(*(self._close(*one) for one in self._instances.values()), return_exceptions=True)
        if self._exporter is not None:
            await asyncio.to_thread(self._exporter.close)
        if self._store is not None:
            if self._pruning is not None:
                await self._pruning
            await self._prune(self._store)

    @staticmethod
    async def _close(follower: OutputFollower, output: ServerOutput) -> None:
        await follower.close()
        await output.close()

    @staticmethod
    async def _prune(store: LogStore) -> None:
        with suppress(StorageError, ObjectError):  # a failure here must not fail items
            await store.prune(datetime.now(UTC))


class ServerOutput:
    """Forwards the output of one instance, across restarts of its server, until closed."""

    def __init__(
        self,
        run: Run,
        settings: Settings,
        instance: int,
        show: Show,
        full: FullText,
        stream: LogStream | None,
        exporter: LogExporter | None,
    ) -> None:
        self._run = run
        self._instance = instance
        self._budget = LineBudget(settings.log_lines_per_second, BURST_LINES)
        self._show = show
        self._full = full
        self._kept = KeptLines(settings.max_log_bytes)
        self._stream = stream
        self._exporter = exporter

    async def take(self, lines: Sequence[str]) -> None:
        """Forward new lines."""
        now = asyncio.get_running_loop().time()
        for line in lines:
            if line and self._budget.allow(now):
                self._say_held_back()
                self._show(f"instance-{self._instance}: {line[:SHOWN_CHARACTERS]}")
        await self._keep(self._kept.take(lines))

    async def _keep(self, lines: Sequence[str]) -> None:
        await self._full.add(lines)
        if self._stream is not None or self._exporter is not None:
            for line in lines:
                self._record(line)

    def _record(self, line: str) -> None:
        task_id = self._run.task_id
        record = LogRecord(
            time=datetime.now(UTC),
            group=self._run.service.name,
            stream=stream_name(task_id, self._instance),
            task_id=task_id,
            instance=self._instance,
            message=line,
        )
        if self._stream is not None:
            self._stream.add(record)
        if self._exporter is not None:
            self._exporter.emit(record)

    def _say_held_back(self) -> None:
        if held_back := self._budget.take_held_back():
            where = self._run.output_address.child(self._run.names.logs)
            self._show(f"instance-{self._instance}: ({held_back:,} lines are not shown here; all are in {where})")

    async def close(self) -> None:
        """Forward what was kept back; returns when all of it is stored. No more lines may come."""
        self._say_held_back()
        await self._keep(self._kept.rest())
        await self._full.close()
        if self._stream is not None:
            await self._stream.close()
