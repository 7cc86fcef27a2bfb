"""A preview of a run's input: every item is listed, and some are looked at as the run would read them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import NamedTuple

from tasks.clients.storage.failures import ObjectError
from tasks.clients.storage.storage import Storage
from tasks.domain.errors import DownloadError, Problem, SpecificationError
from tasks.domain.item import Item
from tasks.domain.paths import parse_address, redact_source
from tasks.domain.refused_items import Count, Counts, Refusal, Sample, period_refusal, planned_refusal
from tasks.domain.request import Body
from tasks.domain.result import NOTES_KEPT
from tasks.domain.run import Run
from tasks.domain.settings import Settings
from tasks.domain.shard import Cutter, ShardBounds
from tasks.engine.fingerprinting import is_manifest
from tasks.engine.items import refusal, size_error
from tasks.engine.looking import FIRST_SECONDS, LOOK_SECONDS, TABLES_BYTES, look_at_items
from tasks.engine.planning import Planner
from tasks.engine.table_sampling import Look

ITEMS_LOOKED_AT = 64
"""Number of items that are looked at if there are more."""
ITEMS_GIVEN_UP = 1_000
"""A run with more items than this is not refused because of its first ones."""
NOTHING_TO_SEND = "no item of it could be sent"
TABLES_READ = 10_000
"""All tables are read and their rows counted if there are at most this many, with at most TABLES_BYTES in total."""


class Example(NamedTuple):
    """The first request that a run would send, and its item."""

    item: Item
    body: Body


@dataclass
class Preview:
    """The findings about an input."""

    items: int = 0
    bytes: int = 0
    unknown_sizes: int = 0
    shards: int = 0
    failed_lines: int = 0
    """Number of items that are FAILED already when planned: unreadable lines, invalid addresses."""
    refused: list[Count] = field(default_factory=list)
    open: int = 0
    """Number of items that are not refused from the listing alone."""
    looked_at: int = 0
    """Number of those that were looked at."""
    sure: bool = True
    """Whether the listing alone shows whether they can be sent, so that a look at one is enough."""
    rows: int | None = None
    """Number of rows of all tables that would be sent; None if they were not counted."""
    example: Example | None = None
    no_example: str = ""
    """Why there is no example, in one line."""
    warnings: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    """Why no item could be sent, so that a run would be useless."""


async def look_at_input(run: Run, settings: Settings, storage: Storage) -> Preview:
    """List a run's input and look at some of its items; nothing is sent or written.

    Problems, also those of the storage, are part of the preview.
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
    looks = await look_at_items(run, settings, storage, found.picked)
    sampled = Counts()
    partly: list[tuple[Item, Look]] = []
    for item, look in looks:
        if look.refusal is not None:
            sampled.add(look.refusal, item.source)
        elif look.warning:
            partly.append((item, look))
        if look.body is not None and preview.example is None:
            preview.example = Example(item, look.body)
    notes = dict.fromkeys(note for _, look in looks for note in look.notes)
    preview.warnings += [f"CSV header: {note}" for note in islice(notes, NOTES_KEPT)]
    preview.open, preview.looked_at = found.open, len(looks)
    preview.refused = [*found.certain.counts(preview.items), *sampled.counts(len(looks), looked_at=True)]
    if run.rule is not None and len(looks) == found.open:
        preview.rows = sum(look.rows for _, look in looks)
    _judge(preview, name, given, sampled.items)
    _warn(preview, partly)
    return preview


async def refuse_hopeless(run: Run, settings: Settings, storage: Storage) -> None:
    """Raises SpecificationError if there are few items, and by their names and sizes no item could be sent.

    The first item that could be sent ends the check, so it costs next to nothing for an ordinary run.
    """
    planner = Planner(storage, parse_address(run.service.input_path), None)
    found, certain, seen = _Listed(run, settings), Counts(), 0
    async with aclosing(planner.items()) as items:
        async for item in items:
            refused = found.refusal(item)
            if refused is None or seen == ITEMS_GIVEN_UP:
                return
            certain.add(refused, item.source)
            seen += 1
    if seen:
        detail = "; ".join(count.text for count in certain.counts(seen))
        raise SpecificationError([Problem("input_path", run.service.input_path, f"{NOTHING_TO_SEND}: {detail}")])


class _Listed:
    """The findings from the listing alone."""

    def __init__(self, run: Run, settings: Settings) -> None:
        self._table = run.rule is not None
        self._limit = settings.max_item_bytes
        self._named = is_manifest(parse_address(run.service.input_path)) or run.failed_of is not None
        self._cutter = Cutter(ShardBounds(settings.shard_items, settings.shard_bytes))
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
            if (refused := self.refusal(item)) is not None:
                self.certain.add(refused, item.source)
                continue
            self._open_bytes += max(0, item.size)
            preview.sure = preview.sure and not self._table and item.size >= 0
            self._few.add(item)
            self._some.add(item)
        cutter.end()
        preview.items, preview.bytes, preview.unknown_sizes = cutter.items, cutter.bytes, cutter.unknown_sizes
        preview.shards = len(cutter.shards)

    def refusal(self, item: Item) -> Refusal | None:
        """Why an item would be refused whatever its content; None if it is not."""
        if item.error:
            return planned_refusal(item.error)
        address, size = item.address, item.size
        link = address.startswith("http")
        # Except for share links, the whole address ends like the name.
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
        """Number of items that are not refused from the listing alone."""
        return self._some.seen

    @property
    def picked(self) -> Sequence[Item]:
        """The items to look at."""
        every = self._table and self._few.seen <= TABLES_READ and self._open_bytes <= TABLES_BYTES
        return self._few.items if every else self._some.items


def _why_not(path: str) -> str:
    try:
        os.stat(path)
    except OSError as error:
        return "There is no such file." if isinstance(error, FileNotFoundError) else f"{error.strerror}."
    return "It has changed since it was listed."


def _judge(preview: Preview, name: str, given: str, refused: int) -> None:
    """Set the problem if no item could be sent, and the reason if there is no example."""
    if preview.example is not None:
        return
    if preview.problems:
        preview.no_example = preview.problems[0].expected
    elif refused == preview.looked_at and (refused or not preview.open):
        looked = [count for count in preview.refused if count.looked_at]
        if [count.reason for count in looked] == ["header"]:
            detail = looked[0].message
            preview.problems.append(Problem("csv_header", "absent", f"{detail} ({looked[0].item})"))
        else:
            detail = f"{'; '.join(count.text for count in preview.refused)}{_how_many(preview)}"
            preview.problems.append(Problem(name, given, f"{NOTHING_TO_SEND}: {detail}"))
        preview.no_example = f"no item could be sent: {detail}"
    else:
        seconds = LOOK_SECONDS + (0 if preview.looked_at else FIRST_SECONDS)
        preview.no_example = f"no item could be read within {seconds:g} s"


def _how_many(preview: Preview) -> str:
    if preview.looked_at == preview.open:
        return ""
    return f", as far as known: {preview.looked_at:,} of {preview.open:,} items were looked at"


def _warn(preview: Preview, partly: Sequence[tuple[Item, Look]]) -> None:
    if not preview.problems:
        preview.warnings += [
            f"{count.share} will be FAILED: {count.message} ({count.item})" for count in preview.refused
        ]
    if partly:
        item, look = partly[0]
        tables = f"{len(partly):,} of {preview.looked_at:,} {'table' if preview.looked_at == 1 else 'tables'} looked at"
        preview.warnings.append(f"{tables}: {look.warning} ({redact_source(item.source)})")
    if preview.looked_at < preview.open and not preview.sure:
        preview.warnings.append(f"{preview.looked_at:,} of {preview.open:,} items were looked at")
