"""Logs of a service's runs: from the Prefect server (the Logs tab), or from the log store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from pydantic import BaseModel

from deployments.services.overview import read_service
from tasks.clients.logs.log_store import LogStore
from tasks.clients.storage.storage import open_storage
from tasks.domain.errors import Problem, SpecificationError, StorageError
from tasks.domain.server_log import is_of_run
from tasks.domain.service import NAME
from tasks.domain.settings import read_settings
from tasks.prefect_side.api import logs, run_of, service
from tasks.prefect_side.blocks import storage_credentials
from tasks.prefect_side.server import prefect_server

_POLL_SECONDS = 1.0
_SILENT_LOOKS = 2
"""Polls that may bring nothing before following ends: a run's process and worker send their last lines after its end.
"""
_LATE = timedelta(seconds=15)
"""How much out of order lines may arrive: they come in batches from several processes."""
_LEVELS = {10: "DEBUG", 20: "INFO", 30: "WARNING", 40: "ERROR", 50: "CRITICAL"}


class Line(BaseModel, frozen=True):
    """One line of a log."""

    time: datetime
    level: str
    message: str

    @property
    def text(self) -> str:
        """The line as printed."""
        return f"{self.time:%Y-%m-%d %H:%M:%S} {self.level:7} {self.message}"


async def lines(name: str, run: str | None = None, *, follow: bool = False) -> AsyncIterator[Line]:
    """The lines that the Logs tab of a run shows, by time; with ``follow`` until the run has ended.

    ``run`` is a flow run's id, by default the service's last one. Raises SpecificationError, ServerError.
    """
    async with prefect_server() as client:
        task_id = await _task_id(client, name, run)
        seen: set[UUID] = set()
        since: datetime | None = None
        silent = 0
        while True:
            ended = not follow or await _has_ended(client, task_id)
            silent += ended
            async for page in logs(client, task_id, since):
                for one in [new for new in page if new.id not in seen]:
                    seen.add(one.id)
                    silent = 0
                    line = Line(time=one.timestamp, level=_LEVELS.get(one.level, str(one.level)), message=one.message)
                    since = max(since or line.time - _LATE, line.time - _LATE)
                    yield line
            if not follow or silent > _SILENT_LOOKS:
                return
            await asyncio.sleep(_POLL_SECONDS)


async def stored(name: str, run: str | None = None) -> AsyncIterator[Line]:
    """The lines of a service in the log store, of one run or of all that are kept, oldest first.

    Works without a server, and for deleted services. ``run`` is a flow run's id. Removes expired lines from the store
    afterwards. Raises SpecificationError if there are no lines, StorageError.
    """
    task_id = _checked(name, run)
    settings = read_settings()
    now = datetime.now(UTC)
    found = False
    async with open_storage(settings, await storage_credentials(settings)) as storage:
        store = LogStore(storage, settings.log_store)
        for stream in await store.streams(name, now):
            if task_id is not None and not is_of_run(stream.name, task_id):
                continue
            for part in stream.parts:
                for one in await store.records(stream, part):
                    found = True
                    yield Line(time=one.time, level=f"#{one.instance}", message=one.message)
        with suppress(StorageError):  # a reader may lack the permission
            await store.prune(now)
    if not found:
        where = f"in the log store {settings.log_store}: is runtime_log_output on? It keeps 7 days"
        wrong = Problem("NAME", name, f"there is nothing of it {where}")
        raise SpecificationError([wrong if run is None else Problem("--run", run, f"there is nothing of it {where}")])


def _checked(name: str, run: str | None) -> str | None:
    """The run's id as it appears in the names of streams. Raises SpecificationError."""
    problems = []
    if NAME.fullmatch(name) is None:
        problems.append(Problem("NAME", name, "should be 1-64 letters, digits, '-' or '_'"))
    task_id = None
    try:
        task_id = None if run is None else str(UUID(run))
    except ValueError:
        problems.append(Problem("--run", run, "should be the whole id of a run: `thresher show NAME --runs`"))
    if problems:
        raise SpecificationError(problems)
    return task_id


async def _task_id(client: PrefectClient, name: str, run: str | None) -> UUID:
    if run is None:
        last = (await read_service(client, name)).last_run
        if last is None:
            raise SpecificationError([Problem("NAME", name, "has no run yet")])
        return UUID(last.id)
    return (await run_of(client, await service(client, name), "--run", run)).id


async def _has_ended(client: PrefectClient, task_id: UUID) -> bool:
    state = (await client.read_flow_run(task_id)).state
    return state is not None and state.is_final()
