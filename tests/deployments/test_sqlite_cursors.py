"""A Prefect server's database on SQLite: what failed leaves nothing behind that can make its event loop wait."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import sys
from types import FrameType

import pytest
import sqlalchemy as sa
from fakes import processes
from prefect.server.database.configurations import AioSqliteConfiguration

from deployments.local_stack.sqlite_cursors import sqlite_url


@pytest.mark.slow
def test_failed_statement__does_not_make_the_garbage_collector_wait_for_the_connections_next_user(tmp_path):
    """A loop that collects garbage holds the lock, as a server's does: without the plugin it waits for a minute."""
    database = tmp_path / "prefect.db"

    async def work() -> int:
        prefects = AioSqliteConfiguration(connection_url=sqlite_url(database))
        engine = await prefects.engine()
        async with engine.begin() as connection:
            await connection.execute(sa.text("CREATE TABLE t (x INTEGER)"))

        async def insert(reads_first: bool) -> None:
            session = await prefects.session(engine)
            async with session, prefects.begin_transaction(session, with_for_update=not reads_first):
                if reads_first:
                    await session.execute(sa.text("SELECT * FROM t"))
                    await insert(reads_first=False)
                await session.execute(sa.text("INSERT INTO t VALUES (1)"))

        with pytest.raises(sa.exc.OperationalError, match="locked"):
            await insert(reads_first=True)  # somebody has written since it read
        holder = sqlite3.connect(database, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        waiting = [asyncio.create_task(insert(reads_first=False)) for _ in range(2)]  # all connections of the pool
        async with asyncio.timeout(processes.DEADLINE_SECONDS):
            while sum(_in_statement(frame) for frame in sys._current_frames().values()) < len(waiting):
                await asyncio.sleep(0.01)
        gc.collect()
        holder.execute("COMMIT")
        holder.close()
        await asyncio.gather(*waiting)
        async with engine.connect() as connection:
            written = (await connection.execute(sa.text("SELECT count(*) FROM t"))).scalar_one()
        await engine.dispose()
        return int(written)

    gc.disable()
    try:
        assert asyncio.run(work()) == 3
    finally:
        gc.enable()


def _in_statement(frame: FrameType) -> bool:
    return frame.f_code.co_name == "_closed_if_it_fails"


def test_sqlite_url__holds_for_any_path(tmp_path):
    database = tmp_path / "with space and %" / "prefect.db"
    database.parent.mkdir()
    engine = sa.create_engine(sqlite_url(database).replace("+aiosqlite", ""))
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE t (x INTEGER UNIQUE)"))
    with pytest.raises(sa.exc.IntegrityError), engine.begin() as connection:
        connection.execute(sa.text("INSERT INTO t VALUES (1), (1)"))
    engine.dispose()
    assert database.exists()
