"""Looks at the first rows of a table: the request that a run would send, and the rows that cannot become one."""

from __future__ import annotations

from itertools import islice
from typing import NamedTuple

from tasks.domain.cells import visible
from tasks.domain.csv_rows import RowReader, csv_text
from tasks.domain.errors import ContentError, RowError
from tasks.domain.header import TableMapping
from tasks.domain.mapping import Mapping
from tasks.domain.refused_items import Refusal, looks_like_names
from tasks.domain.request import Body, row_body
from tasks.domain.rows_per_request import AutoRows
from tasks.domain.service import BatchService
from tasks.domain.settings import Settings
from tasks.engine.rows import read_rows, rows_of_a_request

ROWS_LOOKED_AT = 1_000
"""Number of rows of each table; more if one request has more."""
_NAMES_SHOWN = 5


class Look(NamedTuple):
    """The findings about one item."""

    refusal: Refusal | None = None
    body: Body | None = None
    rows: int = 0
    warning: str = ""
    """Problem of a part of it."""
    notes: tuple[str, ...] = ()
    """Notes on how its header was read, if it is a table."""


async def look_at_table(service: BatchService, table: TableMapping, data: bytes, settings: Settings) -> Look:
    """The findings about the first rows of a table. Raises ContentError if it is not valid CSV or has no rows."""
    reader = await read_rows(table, data, settings)
    mapping, notes = table.of(reader.names())
    wanted = rows_of_a_request(service, mapping, AutoRows())
    texts: list[str] = []
    looked = bad = 0
    first_bad, names = "", False
    while looked < max(ROWS_LOOKED_AT, wanted) and (batch := reader.take(100)) is not None:
        for at, (cells, line) in enumerate(zip(batch.cells, batch.lines, strict=True)):
            looked += 1
            try:
                if (fault := batch.faults.get(at)) is not None:
                    raise mapping.row_fault(fault, line)
                text = mapping.row_text(cells, line)
                if len(texts) < wanted:
                    texts.append(text)
            except RowError as error:
                bad += 1
                first_bad = first_bad or str(error)
                names = names or (looked == 1 and not table.header and len(cells) >= mapping.columns)
    if names and (header := _names(mapping, data, settings, others_are_rows=bad == 1)):
        detail = f"the first line looks like names ({header}); csv_header: present"
        return Look(Refusal("header", detail))
    some = f"{bad:,} of its {'' if looked == reader.count else f'first {looked:,} '}rows cannot become a request"
    if not texts:
        return Look(Refusal("rows", f"{some}, first: {first_bad}"))
    detail = f"{some}, first: {first_bad}" if bad else _passed_over(service, mapping, data, settings)
    return Look(None, row_body(mapping.request(texts)), reader.count, detail, notes)


def _first_line(mapping: Mapping, data: bytes, settings: Settings) -> tuple[list[str], int]:
    """The cells of the first line, whether or not it is a header, and its number."""
    batch = RowReader(csv_text(data, chinese=settings.chinese == "allow"), header=False, needed=mapping.columns).take(1)
    return (list(batch.cells[0]), batch.lines[0]) if batch is not None else ([], 1)


def _names(mapping: Mapping, data: bytes, settings: Settings, *, others_are_rows: bool) -> str:
    """The beginning of the first line if it looks like column names; else empty."""
    cells, _ = _first_line(mapping, data, settings)
    names = [str(part) for field in mapping.fields for part in field.path[-1:]]
    if not cells or not looks_like_names(cells, names, others_are_rows):
        return ""
    more = ", ..." if len(cells) > _NAMES_SHOWN else ""
    return ", ".join(visible(cell).strip('"') for cell in islice(cells, _NAMES_SHOWN)) + more


def _passed_over(service: BatchService, mapping: Mapping, data: bytes, settings: Settings) -> str:
    """A warning if the header line could be a row; empty if it could not, or if that cannot be determined."""
    if service.csv_header != "present" or all(field.type == "string" for field in mapping.fields):
        return ""
    try:
        mapping.row_text(*_first_line(mapping, data, settings))
    except (RowError, ContentError):
        return ""
    return "the first line could be a row, but is passed over; if it is one: csv_header: absent"
