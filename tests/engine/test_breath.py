"""Whatever a table holds, the event loop stays free: stops and deadlines are heard, other items go on."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from clients.support import run as run_on_loop
from engine.runs import TEXT, Shard, local_items, make_run
from fakes.model_server import FakeModelServer

from tasks.domain.stop import BY_HAND
from tasks.engine.shard import infer_shard

MIB = 1 << 20
SIZE = 12 * MIB
LONGEST_PAUSE = 1.0
"""Seconds of computing between two turns of the loop: on a busy machine time passes that is not the loop's."""
LATEST = 10.0
STOPPED_AFTER = 0.8

TABLES = {
    "rows that are no numbers": b"a\n" * (SIZE // 2),
    "rows that are no numbers, with CRLF": b"a\r\n" * (SIZE // 3),
    "one good row, then rows that are no numbers": b"t,1\n" + b"t,a\n" * (SIZE // 4 - 1),
    "rows of another width": b"t,1\n" + b"t\n" * (SIZE // 2 - 2),
    "rows with a quote inside a cell": b"t,1\n" + b' "t\n' * (SIZE // 4 - 1),
    "rows with text behind a quote": b't,1\n' + b'"t"x\n' * (SIZE // 5 - 1),
    "one cell": b"t" * SIZE,
    "one quoted cell with lines": b'"' + b"x\n" * (SIZE // 2 - 1) + b'"',
    "nothing but quotes": b'"' * SIZE,
    "quotes, one too few": b'"' * (SIZE - 1),
    "a quote after many rows": b"t,1\n" * (SIZE // 4 - 1) + b'"',
    "nothing but empty lines": b"\n" * SIZE,
    "empty lines with CRLF, then a row": b"\r\n" * (SIZE // 2 - 2) + b"t,1\n",
    "one row of millions of columns": b"," * SIZE,
    "rows of a million columns": (b"," * MIB + b"\n") * 11,
    "one row of millions of quoted columns": b'"",' * (SIZE // 3),
    "one row of millions of columns with faults": b' ",' * (SIZE // 3),
    "one row of quotes and blanks": b' "' * (SIZE // 2),
    "a fault, then quotes to no end": b'"t"x\n' + b'x"y\n' * (SIZE // 4 - 2),
    "Greek": "α,1\n".encode() * (SIZE // 5),
    "not UTF-8 at the end": b"\r" * (SIZE - 1) + b"\xff",
    "digits": b"t," + b"1" * (SIZE - 2),
    "blanks": b"t," + b" " * (SIZE - 2),
    "rows": b"t,1\n" * (SIZE // 4),
}  # fmt: skip


async def pauses(found: list[float]) -> None:
    """Measure what the loop's thread computes from one of its turns to the next, until cancelled."""
    last = time.thread_time()
    while True:
        await asyncio.sleep(0.005)
        found.append(time.thread_time() - last)
        last = time.thread_time()


JOINED = ["rows", "rows that are no numbers", "rows of a million columns", "rows with text behind a quote"]


@pytest.mark.parametrize(
    ("rows_per_request", "kind"), [*((1, kind) for kind in TABLES), *(("auto", kind) for kind in JOINED)]
)
def test_loop__stays_free_whatever_a_table_holds(
    tmp_path: Path, fake: FakeModelServer, kind: str, rows_per_request: int | str
) -> None:
    joined = {"type": "object", "properties": {"rows": {"type": "array", "items": TEXT}}}
    schema = TEXT if rows_per_request == 1 else joined
    run = make_run(fake.url, str(tmp_path / "out"), request=schema, path="/echo", rows_per_request=rows_per_request)
    shard = Shard(run, local_items(tmp_path / "in", {"1.csv": TABLES[kind]}))
    found: list[float] = []
    late = 0.0

    async def work() -> None:
        nonlocal late
        session = shard.session()
        watching = asyncio.create_task(pauses(found))
        try:
            await shard.store_plan(session)
            inferring = asyncio.create_task(infer_shard(session, shard.ref))
            await asyncio.wait([inferring], timeout=STOPPED_AFTER)
            session.halt(BY_HAND)
            since = time.monotonic()
            await inferring
            late = time.monotonic() - since
            await shard.read_report(session)
        finally:
            watching.cancel()
            await session.close()

    run_on_loop(work())
    assert max(found) < LONGEST_PAUSE
    assert late < LATEST
    assert len(shard.outcomes) == 1
