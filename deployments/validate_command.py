"""``thresher validate``: everything but inference."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from deployments.storage_keys import storage_keys
from tasks.clients.failures import ObjectError, TooLarge
from tasks.clients.storage import Storage
from tasks.domain.errors import ContentError, ItemError
from tasks.domain.header import TableMapping
from tasks.domain.item import Item
from tasks.domain.paths import parse_address, redact
from tasks.domain.request import Body, FileForm, row_body
from tasks.domain.result import NOTES_KEPT
from tasks.domain.rows_per_request import AutoRows
from tasks.domain.run import Run
from tasks.domain.shard import Bounds, Cutter
from tasks.engine.checking import check
from tasks.engine.items import refusal
from tasks.engine.loop import engine_loop
from tasks.engine.planning import Planner
from tasks.engine.rows import read_rows, rows_of_a_request, table_rows
from tasks.settings import Settings, read_settings

ROWS_COUNTED_BYTES = 64 << 20
"""CSV files are read to count their rows up to this many bytes in all."""


def validate_service(fields: dict[str, Any]) -> dict[str, Any]:
    """What a run would do, as plain JSON values; nothing is created. Raises SpecificationError with every problem."""
    return engine_loop().run_blocking(_validate(fields))


async def _validate(fields: dict[str, Any]) -> dict[str, Any]:
    settings = read_settings()
    credentials = await storage_keys(settings)
    run = await check(
        fields, task_id=str(uuid.uuid4()), scheduled_time=datetime.now(UTC), settings=settings, credentials=credentials
    )
    storage = Storage(settings, credentials)
    try:
        return await _preview(run, settings, storage)
    finally:
        await storage.close()


async def _preview(run: Run, settings: Settings, storage: Storage) -> dict[str, Any]:
    planner = Planner(storage, parse_address(run.service.input_path), run.failed_of)
    cutter = Cutter(Bounds(settings.shard_items, settings.shard_bytes))
    refused = 0
    example: tuple[Item, Body] | None = None
    rows: int | None = 0 if run.rule is not None else None
    table = None if run.rule is None else TableMapping.of_service(run.service, run.rule)
    notes: dict[str, None] = {}
    try:
        async for item in planner.items():
            cutter.add(item)
            refused += bool(item.error)
            if item.error or (example is not None and rows is None):
                continue
            if rows is not None and (item.size < 0 or cutter.bytes > ROWS_COUNTED_BYTES):
                rows = None
                if example is not None:
                    continue
            try:
                name, data = await _read(item, settings, storage, table=run.rule is not None)
                if rows is not None and table is not None:
                    found = await read_rows(table, data, settings)
                    rows += found.count
                    notes |= dict.fromkeys(table.of(found.names()).notes)
                if example is None:
                    example = (item, _first_request(run, table, name, data, settings))
            except (ObjectError, ItemError):
                continue  # the run would say so of this item, and go on
        cutter.end()
    except ObjectError as error:
        planner.warnings.append(f"the input cannot be listed to its end: {error.cause}")
    return {
        "name": run.service.name,
        "model": {"version": run.model_version, "type": run.config.model_type, "serving": run.serving},
        "flavor": run.flavor.name,
        "instances": run.instances,
        "plan": {
            "items": cutter.items, "bytes": cutter.bytes, "items_of_unknown_size": cutter.unknown_sizes, "rows": rows,
            "refused_already": refused, "shards": len(cutter.shards),
        },
        "mapping": run.rule,
        "request": None if example is None else _request(run, *example),
        "output_manifest": str(run.output_address.child(run.names.manifest(0))).replace(run.task_id, "{task_id}"),
        "warnings": [*run.warnings, *planner.warnings, *(f"CSV header: {note}" for note in islice(notes, NOTES_KEPT))],
    }  # fmt: skip


async def _read(item: Item, settings: Settings, storage: Storage, *, table: bool) -> tuple[str, bytes]:
    address = parse_address(item.address)
    if refused := refusal(address.name, item.size, settings.max_item_bytes, table=table):
        raise ContentError(refused)
    try:
        return address.name, await storage.read(address, settings.max_item_bytes, item.size)
    except TooLarge as larger:
        raise ContentError(refusal(address.name, larger.size, settings.max_item_bytes, table=table)) from None


def _first_request(run: Run, table: TableMapping | None, name: str, data: bytes, settings: Settings) -> Body:
    if table is None:
        return FileForm(run.api.file_leaf or "file").body(name, data)
    rows = table_rows(table, data, settings)
    mapping = table.of(rows.names()).mapping
    batch = rows.take(rows_of_a_request(run.service, mapping, AutoRows()))
    if batch is None:
        raise ObjectError("no row")
    if batch.faults:
        place = min(batch.faults)
        raise mapping.row_fault(batch.faults[place], batch.lines[place])
    return row_body(mapping.request([*map(mapping.row_text, batch.cells, batch.lines)]))


def _request(run: Run, item: Item, body: Body) -> dict[str, Any]:
    try:
        shown = body.data.decode()
    except UnicodeDecodeError:
        head, _, rest = body.data.partition(b"\r\n\r\n")
        content, _, tail = rest.rpartition(b"\r\n--")
        shown = f"{head.decode()}\r\n\r\n<{len(content)} bytes>\r\n--{tail.decode()}"
    return {
        "item": redact(item.source),
        "method": run.api.method,
        "path": run.api.url,
        "content_type": body.content_type,
        "body": shown,
    }
