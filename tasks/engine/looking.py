"""Looks at some items of an input, concurrently and within a few seconds, as a run would read them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from tasks.clients.storage.failures import Missing, ObjectError, TooLarge
from tasks.clients.storage.storage import Storage
from tasks.domain.errors import ContentError, DownloadError
from tasks.domain.header import TableMapping
from tasks.domain.item import Item
from tasks.domain.paths import Address, parse_address
from tasks.domain.refused_items import FIRST, Refusal
from tasks.domain.request import FileForm
from tasks.domain.run import Run
from tasks.domain.settings import Settings
from tasks.engine.items import size_error
from tasks.engine.table_sampling import Look, look_at_table

TABLES_BYTES = 64 << 20
"""Total size, in bytes, up to which tables are read."""
LINKS_READ = 4
"""Share links are fetched this many at once, until this many could be read: their size cannot be requested alone."""
AT_ONCE = 32
LOOK_SECONDS = 3.0
"""Time-out for all looks together; the caller waits for them."""
FIRST_SECONDS = 15.0
"""Further time for a first readable item, if none was read within the time-out and few items were looked at."""


async def look_at_items(
    run: Run, settings: Settings, storage: Storage, items: Sequence[Item]
) -> list[tuple[Item, Look]]:
    """The findings about each item that could be looked at in time, in input order."""
    looking = _Looking(run, settings, storage)
    found: dict[int, Look] = {}
    turns = asyncio.Semaphore(AT_ONCE)

    async def look(item: Item) -> None:
        async with turns:
            if (seen := await looking.look(item)) is not None:
                found[item.number] = seen

    tasks = [asyncio.create_task(look(item)) for item in items]
    if tasks:
        _, late = await asyncio.wait(tasks, timeout=LOOK_SECONDS)
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_SECONDS):
                while late and len(found) < FIRST and not any(one.body is not None for one in found.values()):
                    # A late example is better than none.
                    _, late = await asyncio.wait(late, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome
    return [(item, found[item.number]) for item in items if item.number in found]


class _Looking:
    """Looks at items as a run would read them."""

    def __init__(self, run: Run, settings: Settings, storage: Storage) -> None:
        self._run = run
        self._settings = settings
        self._limit = settings.max_item_bytes
        self._storage = storage
        self._table = TableMapping.of_service(run.service, run.rule) if run.rule is not None else None
        self._links = 0
        self._linking = asyncio.Semaphore(LINKS_READ)
        self._bytes = 0
        self._reading = asyncio.Lock()
        self._has_example = False

    async def look(self, item: Item) -> Look | None:
        """The findings about an item; None if it is not looked at."""
        address = parse_address(item.address)
        if address.scheme != "http":
            return await self._look(item, address)
        async with self._linking:
            if self._links >= LINKS_READ:
                return None
            seen = await self._look(item, address)
            self._links += seen is not None and seen.refusal is None
            return seen

    async def _look(self, item: Item, address: Address) -> Look | None:
        try:
            if self._table is not None:
                return await self._look_at_table(item, address, self._table)
            return await self._file(item, address)
        except TooLarge as larger:
            return Look(Refusal("size", size_error(address.name, larger.size, self._limit)))
        except ObjectError as failed:
            kind = "missing" if isinstance(failed, Missing) else "reading"
            return Look(Refusal(kind, str(DownloadError(failed.cause))))

    async def _look_at_table(self, item: Item, address: Address, table: TableMapping) -> Look | None:
        if self._bytes > TABLES_BYTES:
            return None
        data = await self._read(item, address)
        self._bytes += len(data)
        try:
            return await look_at_table(self._run.service, table, data, self._settings)
        except ContentError as error:
            return Look(Refusal("content", str(error)))

    async def _file(self, item: Item, address: Address) -> Look | None:
        if address.scheme == "http":
            return self._form(address, await self._read(item, address))
        if item.size < 0:
            size = await self._storage.size(address)
            if wrong := size_error(address.name, size, self._limit):
                return Look(Refusal("size", wrong))
        async with self._reading:  # one example is enough
            if self._has_example:
                return Look() if item.size < 0 else None
            data = await self._read(item, address)
            self._has_example = True
        return self._form(address, data)

    def _form(self, address: Address, data: bytes) -> Look:
        return Look(None, FileForm(self._run.api.file_leaf or "file").body(address.name, data))

    async def _read(self, item: Item, address: Address) -> bytes:
        return await self._storage.read(address, self._limit, item.size, item.version)
