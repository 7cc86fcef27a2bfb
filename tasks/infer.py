"""Infer: one shard. Its items become requests, the responses result files, and the outcomes its report."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.clients import clock
from tasks.console import plain_errors
from tasks.domain.run import Run, ShardDone, ShardRef
from tasks.engine.loop import engine_loop
from tasks.engine.session import Session
from tasks.engine.shard import infer_shard
from tasks.instances import session_of

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
    session = await session_of(run)
    session.planned_items = items
    return await work_on(session, shard)


async def work_on(session: Session, shard: ShardRef) -> ShardDone:
    """Process one shard in a session. Raises ModelServerError, StorageError."""
    started_at = clock.now()
    done, report, digest, tally = await session.during(infer_shard(session, shard))
    return ShardDone(
        shard=done,
        report=report,
        digest=digest,
        successful=tally.successful,
        failed=tally.failed,
        instance=session.number or 0,
        started_at=started_at,
        ended_at=clock.now(),
        preparing_since=session.preparing_since,
        ready_at=session.ready_at,
        deaths=session.group.deaths,
        stopped=session.stopped,
        resumable=session.resumable,
        not_started=session.not_started,
    )
