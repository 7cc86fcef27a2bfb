"""What a run would meet in its input: every item is listed, and some are looked at as the run would read them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from tasks.clients.failures import ObjectError, TooLarge
from tasks.clients.storage import Storage
from tasks.domain.errors import ContentError, DownloadError, Problem
from tasks.domain.item import Item
from tasks.domain.paths import Address, parse_address, redact
from tasks.domain.refused_items import FIRST, Count, Counts, Refusal, Sample, period_refusal, planned_refusal
from tasks.domain.request import Body, FileForm
from tasks.domain.run import Run
from tasks.domain.shard import Bounds, Cutter
from tasks.engine.fingerprinting import is_manifest
from tasks.engine.items import refusal, size_error
from tasks.engine.planning import Planner
from tasks.engine.table_sampling import look_at_table
from tasks.settings import Settings

ITEMS_LOOKED_AT = 64
"""Of more items so many are looked at."""
TABLES_READ = 1_000
TABLES_BYTES = 64 << 20
"""All tables are read, and their rows counted, if they are no more than this, in number and in bytes."""
LINKS_READ = 4
"""Share links that are fetched: they can only be read, not asked for their size."""
AT_ONCE = 32
LOOK_SECONDS = 3.0
"""For all looks together; whoever calls waits for it."""
FIRST_SECONDS = 15.0
"""For a first item that can be read, if none could within that time, and few could not."""


class Example(NamedTuple):
    """The first request that a run would send, and the item it is of."""

    item: Item
    body: Body


@dataclass
class Preview:
    """What was found."""

    items: int = 0
    bytes: int = 0
    unknown_sizes: int = 0
    shards: int = 0
    failed_lines: int = 0
    """Items that are FAILED as they are planned: unreadable lines, addresses that none can be read at."""
    refused: list[Count] = field(default_factory=list)
    open: int = 0
    """Items that the listing alone does not refuse."""
    looked_at: int = 0
    """How many of those were looked at."""
    sure: bool = True
    """Whether the listing tells all that is to be known of them, so that a look at one is enough."""
    rows: int | None = None
    """All rows of all tables that would be sent; None if they were not counted."""
    example: Example | None = None
    no_example: str = ""
    """Why there is no example: one line."""
    warnings: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    """Why no item could be sent: there would be no use in the run."""


class Look(NamedTuple):
    """What was found of one item."""

    refusal: Refusal | None = None
    body: Body | None = None
    rows: int = 0
    warning: str = ""
    """What is wrong with a part of it."""


async def look_at_input(run: Run, settings: Settings, storage: Storage) -> Preview:
    """List a run's input and look at some of its items; nothing is sent or written.

    Problems, those of a storage as well, are in what is returned.
    """
    given = run.service.failed_of or run.service.input_path
    name = "input_path" if run.failed_of is None else "failed_of"
    planner = Planner(storage, parse_address(run.service.input_path), run.failed_of)
    found = _Listed(run, settings)
    try:
        async with aclosing(planner.items()) as items:
            await found.list(items)
    except ObjectError as error:
        found.preview.problems.append(Problem(name, given, f"cannot be listed to its end: {error.cause}"))
    preview = found.preview
    preview.warnings += planner.warnings
    if not preview.items and not preview.problems:
        preview.problems.append(Problem(name, given, "there is no item in it"))
    looks = await _looks(run, settings, storage, found.picked)
    sampled = Counts()
    partly: list[tuple[Item, Look]] = []
    for item, look in looks:
        if look.refusal is not None:
            sampled.add(look.refusal, item.source)
        elif look.warning:
            partly.append((item, look))
        if look.body is not None and preview.example is None:
            preview.example = Example(item, look.body)
    preview.open, preview.looked_at = found.open, len(looks)
    preview.refused = [*found.certain.counts(preview.items), *sampled.counts(len(looks), looked_at=True)]
    if run.rule is not None and len(looks) == found.open:
        preview.rows = sum(look.rows for _, look in looks)
    _judge(preview, name, given, sampled.items)
    _warn(preview, partly)
    return preview


class _Listed:
    """Everything that the listing alone tells."""

    def __init__(self, run: Run, settings: Settings) -> None:
        self._table = run.rule is not None
        self._limit = settings.max_item_bytes
        self._named = is_manifest(parse_address(run.service.input_path)) or run.failed_of is not None
        self._cutter = Cutter(Bounds(settings.shard_items, settings.shard_bytes))
        self._now = datetime.now(UTC)
        self._few = Sample(TABLES_READ if self._table else ITEMS_LOOKED_AT)
        self._some = Sample(ITEMS_LOOKED_AT)
        self._open_bytes = 0
        self.certain = Counts()
        self.preview = Preview()

    async def list(self, items: AsyncGenerator[Item]) -> None:
        cutter, preview = self._cutter, self.preview
        async for item in items:
            if cutter.add(item) is not None:
                await asyncio.sleep(0)
            preview.failed_lines += bool(item.error)
            if (refused := self._refusal(item)) is not None:
                self.certain.add(refused, item.source)
                continue
            self._open_bytes += max(0, item.size)
            preview.sure = preview.sure and not self._table and item.size >= 0
            self._few.add(item)
            self._some.add(item)
        cutter.end()
        preview.items, preview.bytes, preview.unknown_sizes = cutter.items, cutter.bytes, cutter.unknown_sizes
        preview.shards = len(cutter.shards)

    def _refusal(self, item: Item) -> Refusal | None:
        """Why an item would be refused whatever is in it."""
        if item.error:
            return planned_refusal(item.error)
        address, size = item.address, item.size
        link = address.startswith("http")
        # The whole address ends as its name does, but for links.
        name = parse_address(address).name if link else address
        if wrong := refusal(name, size, self._limit, table=self._table):
            return Refusal("size" if size_error(name, size, self._limit) == wrong else "kind", wrong)
        if link:
            expired = period_refusal(address, self._now)
            return Refusal("period", expired) if expired else None
        if self._named and address.startswith("/"):
            if size < 0:
                return Refusal("missing", str(DownloadError(_why_not(address))))
            if os.path.isdir(address):
                return Refusal("folder", str(DownloadError("It is a folder.")))
        return None

    @property
    def open(self) -> int:
        """Items that nothing is known of but their names and sizes."""
        return self._some.seen

    @property
    def picked(self) -> Sequence[Item]:
        """Those that are looked at."""
        every = self._table and self._few.seen <= TABLES_READ and self._open_bytes <= TABLES_BYTES
        return self._few.items if every else self._some.items


def _why_not(path: str) -> str:
    try:
        os.stat(path)
    except OSError as error:
        return "There is no such file." if isinstance(error, FileNotFoundError) else f"{error.strerror}."
    return "It has changed since it was listed."


async def _looks(run: Run, settings: Settings, storage: Storage, items: Sequence[Item]) -> list[tuple[Item, Look]]:
    """What was found of each item that could be looked at in time, in input order."""
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
                    # Better late than without an example.
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
        self._limit = settings.max_item_bytes
        self._storage = storage
        self._links = 0
        self._bytes = 0
        self._reading = asyncio.Lock()
        self._has_example = False

    async def look(self, item: Item) -> Look | None:
        """What is found of an item; None if it is not looked at."""
        address = parse_address(item.address)
        if address.scheme == "http":
            self._links += 1
            if self._links > LINKS_READ:
                return None
        try:
            if self._run.rule is not None:
                return await self._table(item, address)
            return await self._file(item, address)
        except TooLarge as larger:
            return Look(Refusal("size", size_error(address.name, larger.size, self._limit)))
        except ObjectError as failed:
            return Look(Refusal("missing" if failed.missing else "reading", str(DownloadError(failed.cause))))

    async def _table(self, item: Item, address: Address) -> Look | None:
        if self._bytes > TABLES_BYTES:
            return None
        data = await self._read(item, address)
        self._bytes += len(data)
        try:
            seen = await look_at_table(self._run, data)
        except ContentError as error:
            return Look(Refusal("content", str(error)))
        if seen.body is None:
            return Look(Refusal("header" if seen.header else "rows", seen.said))
        return Look(None, seen.body, seen.rows, seen.said)

    async def _file(self, item: Item, address: Address) -> Look | None:
        size = item.size
        if size < 0 and address.scheme != "http":
            size = await self._storage.size(address)
            if wrong := size_error(address.name, size, self._limit):
                return Look(Refusal("size", wrong))
        async with self._reading:  # one is enough
            if self._has_example and address.scheme != "http":
                return Look() if item.size < 0 else None
            data = await self._read(item, address)
            self._has_example = True
        return Look(None, FileForm(self._run.api.file_leaf or "file").body(address.name, data))

    async def _read(self, item: Item, address: Address) -> bytes:
        return await self._storage.read(address, self._limit, item.size, item.version)


def _judge(preview: Preview, name: str, given: str, refused: int) -> None:
    """Whether any item could be sent; and if there is no example, why."""
    if preview.example is not None:
        return
    if preview.problems:
        preview.no_example = preview.problems[0].expected
    elif refused == preview.looked_at and (refused or not preview.open):
        looked = [count for count in preview.refused if count.looked_at]
        if [count.reason for count in looked] == ["header"]:
            said = looked[0].message
            preview.problems.append(Problem("csv_header", "absent", f"{said} ({looked[0].item})"))
        else:
            said = f"{'; '.join(count.text for count in preview.refused)}{_how_many(preview)}"
            preview.problems.append(Problem(name, given, f"no item of it could be sent: {said}"))
        preview.no_example = f"no item could be sent: {said}"
    else:
        seconds = LOOK_SECONDS + (0 if preview.looked_at else FIRST_SECONDS)
        preview.no_example = f"no item could be read within {seconds:g} s"


def _how_many(preview: Preview) -> str:
    if preview.looked_at == preview.open:
        return ""
    return f", as far as can be told: {preview.looked_at:,} of {preview.open:,} items were looked at"


def _warn(preview: Preview, partly: Sequence[tuple[Item, Look]]) -> None:
    if not preview.problems:
        preview.warnings += [
            f"{count.share} will be FAILED: {count.message} ({count.item})" for count in preview.refused
        ]
    if partly:
        item, look = partly[0]
        tables = f"{len(partly):,} of {preview.looked_at:,} {'table' if preview.looked_at == 1 else 'tables'} looked at"
        preview.warnings.append(f"{tables}: {look.warning} ({redact(item.source)})")
    if preview.looked_at < preview.open and not preview.sure:
        preview.warnings.append(f"{preview.looked_at:,} of {preview.open:,} items were looked at")
