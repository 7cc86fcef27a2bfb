"""The instances of a process: opened for a run's shards, looked at, stopped, and closed with the process.

In standalone mode that is the flow's process, with all instances of the run. In distributed mode each instance is in
the process of a Dask worker, where tasks.distribution.coordinator calls the functions under "called from elsewhere".
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import time
import warnings
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from contextvars import copy_context
from functools import cache, partial
from typing import Any

from tasks.clients.processes.process_privacy import hide_memory
from tasks.clients.processes.scratch_folders import remove_left_folders
from tasks.domain.run import Run, ShardRef
from tasks.domain.settings import read_settings
from tasks.domain.sharing import InstanceReport
from tasks.domain.stop import Stop
from tasks.engine.loop import engine_loop
from tasks.engine.progress import forget
from tasks.engine.session import Session
from tasks.engine.sessions import sessions
from tasks.prefect_side.blocks import resolved_environment, storage_credentials
from tasks.prefect_side.internals import NEVER_AWAITED, RUN_LOGGERS, without_integrations
from tasks.prefect_side.own_run import own_task_id
from tasks.prefect_side.run_logs import outlive_reader, plain_errors


async def session_of(run: Run, planned_items: int) -> Session:
    """The session of a run in this process, made on first use; in distributed mode, once :func:`begin` has made it."""
    if run.is_distributed:
        return await sessions.opened(run.task_id)
    return await sessions.open(run.task_id, partial(_new_session, run, planned_items, None))


async def _new_session(run: Run, planned_items: int, number: int | None) -> Session:
    settings = read_settings()
    credentials = await storage_credentials(settings)
    environment = partial(resolved_environment, run.service)
    return Session(run, settings, credentials, environment, planned_items, _shown(run), number)


def _shown(run: Run) -> Callable[[str], None]:
    """A callback that writes a model server's output line to the run's Logs tab, from any thread."""
    extra = {"flow_run_id": run.task_id, "flow_run_name": run.service.name, "flow_name": "batch_service"}
    logger = logging.LoggerAdapter(logging.getLogger(f"{RUN_LOGGERS[0]}.model_server"), extra)
    context = copy_context()  # Prefect's settings, which the engine's thread does not have
    return lambda line: context.run(logger.info, "%s", line)


@cache
def _close_at_exit() -> None:
    """Close the sessions at exit, in case that was not waited for, such as after Ctrl-C was pressed twice."""
    atexit.register(lambda: engine_loop().run_blocking(sessions.close_all()))


@asynccontextmanager
async def instances() -> AsyncIterator[None]:
    """Let shards start instances in this process; all are closed at the end of the block, however it comes."""
    hide_memory()
    plain_errors()
    outlive_reader()
    await asyncio.to_thread(remove_left_folders)
    task_id = own_task_id()
    _close_at_exit()
    await engine_loop().run(sessions.begin(task_id))
    try:
        yield
    except BaseException:
        # Shards that Prefect has not begun are no longer needed.
        warnings.filterwarnings("ignore", message=NEVER_AWAITED)
        raise
    finally:
        await engine_loop().run(sessions.close(task_id))


# -- called from elsewhere --------------------------------------------------------------------------------------------


WATCH_SECONDS = 1.0
_THERE = ("running", "paused", "init")
_looked_at: dict[str, float] = {}
"""By task id: when its run last looked at this process's instance."""


async def begin(run: Run, number: int, planned_items: int, dask_worker: Any = None) -> bool:
    """Start instance ``number`` of a run in this process; False if it is busy with an instance of another run.

    The instance ends with :func:`end`, or by itself once the run no longer looks at it. It also ends when the Dask
    worker (passed by Dask) has lost its scheduler, which then takes the worker for dead and gives its shards to others.
    """
    from prefect.logging.configuration import setup_logging

    hide_memory()
    setup_logging()
    plain_errors()
    _close_at_exit()
    if type(dask_worker).__module__ == "tasks.clients.cluster.dask_process":
        without_integrations()
    return await engine_loop().run(_begin(run, number, planned_items, dask_worker))


async def _begin(run: Run, number: int, planned_items: int, dask_worker: Any) -> bool:
    if sessions.others(run.task_id):
        return False
    if run.task_id not in _looked_at:
        watching = asyncio.create_task(_watch(run.task_id, dask_worker))
        _watching.add(watching)
        watching.add_done_callback(_watching.discard)
    _looked_at[run.task_id] = time.monotonic()
    await sessions.begin(run.task_id)
    session = await sessions.open(run.task_id, partial(_new_session, run, planned_items, number))
    session.start_soon()
    return True


_watching: set[asyncio.Task[None]] = set()


async def _watch(task_id: str, dask_worker: Any) -> None:
    """End this process's instance of a run that has abandoned it."""
    left_alone_seconds = read_settings().left_alone_seconds
    while (looked_at := _looked_at.get(task_id)) is not None:
        gone = dask_worker is not None and dask_worker.status.name not in _THERE
        if gone or time.monotonic() - looked_at > left_alone_seconds:
            _looked_at.pop(task_id, None)
            await sessions.close(task_id)
            forget(task_id)
            return
        await asyncio.sleep(WATCH_SECONDS)


async def look(task_id: str) -> InstanceReport | None:
    """The state of this process's instance of a run; None if it has none."""
    return await engine_loop().run(_look(task_id))


async def _look(task_id: str) -> InstanceReport | None:
    session = sessions.held(task_id)
    if session is None:
        return None
    _looked_at[task_id] = time.monotonic()
    outage = session.group.outages.current
    error = session.start_error or session.group.loss or session.reach.cut_off
    return InstanceReport(
        seconds=time.monotonic(),
        ready=session.group.ready and not error,
        shards=session.shards.loads,
        error=error,
        cut_off=bool(session.reach.cut_off),
        finished=session.shards.finished,
        sick=session.group.sick,
        stopped=session.ending.stopped,
        away=session.watch.away,
        outage=outage.cause if outage is not None else "",
        outage_seconds=outage.lasts(time.monotonic()) if outage is not None else 0.0,
    )


async def hand_back(task_id: str, key: str, share: float, pieces: int) -> Sequence[ShardRef]:
    """Parts of a shard that this process has not begun, and gives up: see tasks.engine.shard.ShardWork."""
    return await engine_loop().run(_hand_back(task_id, key, share, pieces))


async def _hand_back(task_id: str, key: str, share: float, pieces: int) -> Sequence[ShardRef]:
    session = sessions.held(task_id)
    return await session.shards.hand_back(key, share, pieces) if session is not None else []


async def stop_early(task_id: str, stop: Stop) -> None:
    """Send no further request of a run, for this reason."""
    await engine_loop().run(_stop_early(task_id, stop))


async def _stop_early(task_id: str, stop: Stop) -> None:
    if stop.by_hand:
        await sessions.halt(task_id)
    elif (session := sessions.held(task_id)) is not None:
        session.ending.stop(stop)


async def end(task_id: str) -> None:
    """End this process's instance of a run."""
    _looked_at.pop(task_id, None)
    await engine_loop().run(sessions.close(task_id))
    forget(task_id)
