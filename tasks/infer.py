"""Infer: one shard. Its items become requests, the responses result files, and the outcomes its report."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.distribution.worker_side import session_of
from tasks.domain.run import Run, ShardDone, ShardRef
from tasks.engine.loop import engine_loop
from tasks.engine.shard import work_on
from tasks.prefect_side.run_logs import plain_errors

SHARDS_IN_PROCESS = 4
"""Shards that one process works on at once: while one runs out of items, the others keep the instances busy."""


@task(name="infer", task_run_name="infer-{shard.number}", cache_policy=NO_CACHE, persist_result=False)
async def infer(run: Run, items: int, shard: ShardRef) -> ShardDone:
    """Process one shard of a run of ``items`` items.

    The first shard of a process starts its instances; they serve all its shards. Raises ModelServerError if no instance
    can be started.
    """
    plain_errors()
    return await engine_loop().run(_infer(run, items, shard))


async def _infer(run: Run, items: int, shard: ShardRef) -> ShardDone:
    return await work_on(await session_of(run, items), shard)
