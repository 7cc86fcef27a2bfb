"""Infer: one shard. Its items become requests, the answers result files, and what came of them its report."""

from __future__ import annotations

import atexit
import logging
import time
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import copy_context
from functools import cache, partial

from prefect import runtime, task
from prefect.cache_policies import NO_CACHE

from tasks.blocks import resolved_environment, storage_credentials
from tasks.console import plain_errors
from tasks.domain.run import Run, ShardDone, ShardRef
from tasks.embedded_server import guard_server
from tasks.engine.loop import engine_loop
from tasks.engine.session import Session, sessions
from tasks.engine.shard import infer_shard
from tasks.settings import read_settings

SHARDS_AT_ONCE = 4
"""Shards that one process works on at once: while one runs out of items, the others keep the instances busy."""


@task(name="infer", task_run_name="infer-{shard.number}", cache_policy=NO_CACHE, persist_result=False)
async def infer(run: Run, items: int, shard: ShardRef) -> ShardDone:
    """Process one shard of a run of ``items`` items.

    The first shard of a process starts its instances; they serve all its shards. Raises ModelServerError if none can be
    started.
    """
    plain_errors()
    return await engine_loop().run(_infer(run, items, shard))


async def _new_session(run: Run) -> Session:
    settings = read_settings()
    credentials = await storage_credentials(settings)
    return Session(run, settings, credentials, partial(resolved_environment, run.service), _shown(run))


def _shown(run: Run) -> Callable[[str], None]:
    """Takes a line that a model server has printed to the run's Logs tab, from any thread."""
    extra = {"flow_run_id": run.task_id, "flow_run_name": run.service.name, "flow_name": "batch_service"}
    logger = logging.LoggerAdapter(logging.getLogger("prefect.flow_runs.model_server"), extra)
    context = copy_context()  # Prefect's settings, which the engine's thread does not know
    return lambda line: context.run(logger.info, "%s", line)


async def _infer(run: Run, items: int, shard: ShardRef) -> ShardDone:
    session = await sessions.open(run.task_id, partial(_new_session, run))
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


@cache
def _close_at_exit() -> None:
    """For whoever does not wait until the sessions are closed, such as a user who presses Ctrl-C twice."""
    atexit.register(lambda: engine_loop().run_blocking(sessions.close_all()))


@asynccontextmanager
async def instances() -> AsyncIterator[None]:
    """While it lasts, shards may start instances in this process; at its end, however it comes, all are stopped."""
    plain_errors()
    guard_server()
    task_id = str(runtime.flow_run.id)
    _close_at_exit()
    await engine_loop().run(sessions.begin(task_id))
    try:
        yield
    except BaseException:
        # Shards that Prefect has not begun are of no interest any more.
        warnings.filterwarnings("ignore", message="coroutine 'run_task_async' was never awaited")
        raise
    finally:
        await engine_loop().run(sessions.close(task_id))
