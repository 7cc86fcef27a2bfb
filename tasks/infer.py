"""Infer: one shard. Its items become requests, the answers result files, and what came of them its report."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from prefect import runtime, task
from prefect.cache_policies import NO_CACHE

from tasks.blocks import resolved_environment, storage_credentials
from tasks.console import plain_errors
from tasks.domain.credentials import Credentials
from tasks.domain.run import Run, ShardDone, ShardRef
from tasks.embedded_server import guard_server
from tasks.engine.loop import engine_loop
from tasks.engine.session import Session, sessions
from tasks.engine.shard import infer_shard
from tasks.settings import Settings, read_settings

SHARDS_AT_ONCE = 4
"""Shards that one process works on at once: while one runs out of items, the others keep the instances busy."""


@task(name="infer", task_run_name="infer-{shard.number}", cache_policy=NO_CACHE, persist_result=False)
async def infer(run: Run, items: int, shard: ShardRef) -> ShardDone:
    """Process one shard of a run of ``items`` items.

    The first shard of a process starts its instances; they serve all its shards. Raises ModelServerError if none can be
    started.
    """
    plain_errors()
    settings = read_settings()
    return await engine_loop().run(_infer(run, items, shard, settings, await storage_credentials(settings)))


async def _infer(
    run: Run, items: int, shard: ShardRef, settings: Settings, credentials: dict[str, Credentials]
) -> ShardDone:
    environment = partial(resolved_environment, run.service.environment)
    session = await sessions.open(run.task_id, lambda: Session(run, settings, credentials, environment))
    session.planned_items = items
    started_at = time.time()
    tally = await session.during(infer_shard(session, shard))
    return ShardDone(
        shard=shard,
        successful=tally.successful,
        failed=tally.failed,
        started_at=started_at,
        ended_at=time.time(),
        preparing_since=session.preparing_since,
        ready_at=session.ready_at,
        deaths=session.group.deaths,
        stopped=session.stopped,
    )


@asynccontextmanager
async def instances() -> AsyncIterator[None]:
    """While it lasts, shards may start instances in this process; at its end, however it comes, all are stopped."""
    plain_errors()
    guard_server()
    try:
        yield
    finally:
        await engine_loop().run(sessions.close(str(runtime.flow_run.id)))
