"""The log store: model server output as JSON lines, in a folder or bucket of the administrator's choice."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from tasks.clients.storage import local_files
from tasks.clients.storage.failures import Missing, ObjectError
from tasks.clients.storage.output_folder import OutputFolder
from tasks.clients.storage.storage import Storage
from tasks.domain.errors import StorageError
from tasks.domain.paths import Address, parse_address
from tasks.domain.server_log import LogRecord

KEPT_DAYS = 7
FLUSH_SECONDS = 5.0
FLUSH_BYTES = 1 << 20
_GROUP = re.compile(r"[A-Za-z0-9_-]{1,64}")
_STREAM = re.compile(r"[A-Za-z0-9_-]{1,128}")
_PART = re.compile(r"([0-9]{13})-[0-9]{6}\.jsonl")
_TEMPORARY = ".tmp"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Stream:
    """One stream of the log store: its name, and the names of its objects, ordered by time."""

    group: str
    name: str
    parts: tuple[str, ...]


class LogStore:
    """``<store>/<group>/<stream>/<milliseconds>-<number>.jsonl``: objects that are written once and never changed.

    This lets many runs write at once, on any kind of storage, and names alone show which objects are too old.
    """

    def __init__(self, storage: Storage, address: str) -> None:
        self._storage = storage
        self._root = parse_address(address)
        self._output = OutputFolder(storage, self._root, _TEMPORARY, lasts=False)

    async def append(self, name: str, records: Sequence[LogRecord]) -> None:
        """Write records of one stream as ``name``, relative to the store. Raises ObjectError."""
        if self._root.scheme == "local":
            with suppress(OSError):
                os.makedirs(self._root.path, mode=0o700, exist_ok=True)
        await self._output.write(name, b"".join(record.to_json() for record in records))

    async def streams(self, group: str, now: datetime) -> list[Stream]:
        """The streams of a group, in the order of their beginnings, without expired parts. Raises StorageError."""
        oldest = _oldest(now)
        found: dict[str, list[str]] = {}
        try:
            async for name, _, _ in self._storage.list(self._folder(group)):
                stream, _, part = name.partition("/")
                if (match := _PART.fullmatch(part)) is not None and int(match[1]) >= oldest:
                    found.setdefault(stream, []).append(part)
        except Missing:
            pass
        except ObjectError as error:
            raise StorageError(f"The log store {self._root} cannot be read: {error.cause}") from None
        streams = (Stream(group, name, tuple(sorted(parts))) for name, parts in found.items())
        return sorted(streams, key=lambda stream: (stream.parts[0], stream.name))

    async def records(self, stream: Stream, part: str) -> list[LogRecord]:
        """The records in a part of a stream, ordered by time; a part is not large. Raises StorageError."""
        folder = self._folder(stream.group).child(_checked(_STREAM, stream.name, "stream"))
        try:
            text = await self._storage.read(folder.child(part))
        except Missing:  # it has just expired
            return []
        except ObjectError as error:
            raise StorageError(f"The log store {self._root} cannot be read: {error.cause}") from None
        found = []
        for line in text.split(b"\n"):
            with suppress(ValueError):
                found.append(LogRecord.from_json(line))
        return found

    async def prune(self, now: datetime) -> int:
        """Remove the store's own objects older than seven days, and no others; the number of removed objects.

        Raises StorageError.
        """
        oldest = _oldest(now)
        removed = 0
        try:
            async for name, _, _ in self._storage.list(self._root):
                group, stream, part = (*name.split("/"), "", "", "")[:3]
                match = _PART.fullmatch(part)
                if name.count("/") != 2 or match is None or not (_GROUP.fullmatch(group) and _STREAM.fullmatch(stream)):
                    continue
                if int(match[1]) < oldest:
                    await self._output.delete_files([name])
                    removed += 1
                    if self._root.scheme == "local":
                        folder = f"{self._root.path}/{group}"
                        local_files.remove_empty(f"{folder}/{stream}", folder)
        except Missing:
            pass
        except ObjectError as error:
            raise StorageError(f"The log store {self._root} cannot be cleared of old logs: {error.cause}") from None
        if self._root.scheme == "local":
            temporary = self._output.scratch
            local_files.remove_empty(temporary.child("tmp").path, temporary.path)
        return removed

    def _folder(self, group: str) -> Address:
        return self._root.child(_checked(_GROUP, group, "group"))


def _oldest(now: datetime) -> int:
    """The millisecond since 1970 before which parts are too old."""
    return int((now - timedelta(days=KEPT_DAYS)).timestamp() * 1000)


def _checked(pattern: re.Pattern[str], name: str, what: str) -> str:
    if pattern.fullmatch(name) is None:
        raise ValueError(f"{name!r} is no {what} of the log store: letters, digits, '-' and '_'")
    return name


class LogStream:
    """Buffers records of one stream and writes them every few seconds. A failing store does not fail the run."""

    def __init__(self, store: LogStore, group: str, stream: str) -> None:
        self._store = store
        self._path = f"{_checked(_GROUP, group, 'group')}/{_checked(_STREAM, stream, 'stream')}"
        self._records: list[LogRecord] = []
        self._bytes = 0
        self._written = 0
        self._warned = False
        self._full = asyncio.Event()
        self._closing = False
        self._flushing = asyncio.create_task(self._flush_now_and_then())

    def add(self, record: LogRecord) -> None:
        """Buffer a record."""
        self._records.append(record)
        self._bytes += len(record.message)
        if self._bytes >= FLUSH_BYTES:
            self._full.set()

    async def close(self) -> None:
        """Write the remaining records."""
        self._closing = True
        self._full.set()
        await self._flushing

    async def _flush_now_and_then(self) -> None:
        while not self._closing:
            with suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_SECONDS):
                    await self._full.wait()
            self._full.clear()
            await self._flush()
        await self._flush()

    async def _flush(self) -> None:
        records, self._records, self._bytes = self._records, [], 0
        if not records:
            return
        milliseconds = int(records[0].time.timestamp() * 1000)
        name = f"{self._path}/{milliseconds:013d}-{self._written:06d}.jsonl"
        self._written += 1
        try:
            await self._store.append(name, records)
        except ObjectError as error:
            if not self._warned:
                _log.warning("log store not written stream=%s cause=%s", self._path, error.cause)
            self._warned = True
