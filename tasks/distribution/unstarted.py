"""A run without a single instance that could be started: it still accounts for every item, so that it can publish."""

from __future__ import annotations

import uuid

from prefect import get_run_logger

from tasks.domain.errors import ModelServerError
from tasks.domain.instance import GivenEnvironment
from tasks.domain.run import Plan, Run, RunStopped, ShardDone
from tasks.domain.settings import read_settings
from tasks.domain.stop import BY_HAND, Stop
from tasks.engine.loop import engine_loop
from tasks.engine.progress import progress_of
from tasks.engine.session import Session
from tasks.engine.sessions import sessions
from tasks.engine.shard import work_on
from tasks.prefect_side.blocks import storage_credentials


async def not_started(run: Run, planned: Plan, error: ModelServerError | RunStopped) -> list[ShardDone]:
    """Every shard of a run whose instances cannot start or continue: its remaining items are FAILED for that reason.

    The reason may also be the user's stop, if that came before an instance was there.

    Items that failed for reasons of their own, and those that earlier tries or lost instances have reported, keep their
    outcomes. Raises StorageError if plan or reports cannot be read or written.
    """
    stopped = isinstance(error, RunStopped)
    if not stopped:
        get_run_logger().error("no item can be sent any more: %s", str(error).partition("\n")[0])
    settings = read_settings()
    credentials = await storage_credentials(settings)

    async def work() -> list[ShardDone]:
        # In a try of its own: it reads the instances' partial reports as a resumed run does.
        own = run.model_copy(update={"attempt": uuid.uuid4().hex[:8], "deadline_at": None})
        session = Session(own, settings, credentials, _no_environment, planned.items)
        held = sessions.held(run.task_id)
        progress = progress_of(run.task_id)
        begun = progress.done > 0
        progress.done = progress.failed = 0  # each shard recounts the outcomes that it finds
        stop = BY_HAND if stopped else Stop(reason="not started", cause=str(error), resumable=begun)
        session.preparing_since = held.preparing_since if held is not None else 0.0
        session.ending.stop(stop)
        try:
            return [await work_on(session, shard) for shard in planned.shards]
        finally:
            await session.close()

    return await engine_loop().run(work())


async def _no_environment() -> GivenEnvironment:
    return GivenEnvironment()
