"""Plan and reports, in and out (Parquet)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.domain.item import Item
from tasks.domain.result import Outcome, Tally

_PLAN = pa.schema(
    [
        ("number", pa.int64()),
        ("source", pa.string()),
        ("address", pa.string()),
        ("size", pa.int64()),
        ("result_name", pa.string()),
        ("error", pa.string()),
    ]
)
_REPORT = pa.schema(
    [
        ("number", pa.int64()),
        ("source", pa.string()),
        ("result_name", pa.string()),
        ("message", pa.string()),
        ("written", pa.bool_()),
        ("rows", pa.int64()),
        ("failed_rows", pa.int64()),
        ("bytes_read", pa.int64()),
        ("bytes_written", pa.int64()),
    ]
)
_TALLY = b"thresher.tally"


def plan_bytes(items: Sequence[Item]) -> bytes:
    """One shard's items as Parquet."""
    return _parquet(_columns(items, _PLAN), _PLAN)


def read_plan(data: bytes, first: int = 0, behind: int | None = None) -> list[Item]:
    """The items of one shard's part of the plan; only those from number ``first`` on and before ``behind``."""
    table = _table(data, _PLAN)
    if table.num_rows:
        start = table.column("number")[0].as_py()  # they are numbered without gaps
        skipped = max(0, first - start)
        table = table.slice(skipped, None if behind is None else max(0, behind - start - skipped))
    return [Item(*row) for row in zip(*(column.to_pylist() for column in table.columns), strict=True)]


def report_bytes(outcomes: Sequence[Outcome], tally: Tally) -> bytes:
    """Outcomes and their tally as Parquet."""
    return _parquet(_columns(outcomes, _REPORT), _REPORT.with_metadata({_TALLY: orjson.dumps(tally.to_json())}))


def read_report(data: bytes) -> tuple[list[Outcome], Tally]:
    """The outcomes of a report, in the order they were written, and their tally."""
    table = _table(data, _REPORT)
    columns = (column.to_pylist() for column in table.select(_REPORT.names).columns)
    return [Outcome(*row) for row in zip(*columns, strict=True)], _tally(table)


def read_numbers(data: bytes) -> tuple[list[int], Tally]:
    """The numbers of the items of a report, in the order they were written, and its tally: a tenth of the time."""
    table = _table(data, _REPORT, ["number"])
    return table.column("number").to_pylist(), _tally(table)


def _tally(table: pa.Table) -> Tally:
    return Tally.from_json(orjson.loads((table.schema.metadata or {})[_TALLY]))


@cache
def _small_pool() -> None:
    """Arrow's own allocator takes some 40 MB at once, for tables of which the largest have a few."""
    pa.set_memory_pool(pa.system_memory_pool())


def _table(data: bytes, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    _small_pool()
    # Not read_table: that imports pyarrow's compute and dataset modules, which takes a quarter of a second.
    return pq.ParquetFile(pa.BufferReader(data)).read(columns=[*(columns or schema.names)])


def _columns(rows: Sequence[Any], schema: pa.Schema) -> list[Any]:
    _small_pool()
    columns = list(zip(*rows, strict=True)) or [()] * len(schema)
    return [pa.array(column, type=field.type) for column, field in zip(columns, schema, strict=True)]


def _parquet(columns: list[Any], schema: pa.Schema) -> bytes:
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_arrays(columns, schema=schema), buffer, compression="zstd", write_statistics=False)
    data: bytes = buffer.getvalue().to_pybytes()
    return data
