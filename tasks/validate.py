"""Validate: specification, model, pool and storage agree, or the run is refused with every problem at once."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from prefect import get_run_logger, runtime, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client

from tasks.clients import clock
from tasks.clients.pool_files import read_pools
from tasks.domain.errors import SpecificationError
from tasks.domain.pool import Pool
from tasks.domain.run import Run
from tasks.domain.service import BatchService
from tasks.domain.settings import Settings, read_settings
from tasks.engine.checking import check
from tasks.engine.ending import unless_stopped
from tasks.engine.loop import engine_loop
from tasks.engine.progress import progress_of
from tasks.prefect_side.api import server_pools
from tasks.prefect_side.as_deployed import not_as_deployed
from tasks.prefect_side.blocks import resolved_environment, storage_credentials
from tasks.prefect_side.own_run import own_flow_run, own_task_id


@task(name="validate", task_run_name="validate", cache_policy=NO_CACHE, persist_result=False)
async def validate(service: BatchService) -> Run:
    """The run, with everything that was decided for it. Raises SpecificationError with every problem."""
    minutes = service.deadline_minutes
    deadline_at = None if minutes is None else clock.now() + minutes * 60
    settings = read_settings()
    task_id = own_task_id()
    progress = progress_of(task_id)
    progress.enter("validating")
    progress.service = service.name
    scheduled: Any = runtime.flow_run.scheduled_start_time or datetime.now(UTC)
    if service.schedule is not None:
        scheduled = scheduled.astimezone(ZoneInfo(service.schedule.timezone))
    pools = await _pools(service, settings)
    pool = (pools or {}).get(service.resource_pool)
    checking = check(
        service,
        task_id=task_id,
        scheduled_time=scheduled,
        settings=settings,
        credentials=await storage_credentials(settings),
        pools=pools,
        known=await not_as_deployed(service, in_pods=pool is not None and pool.makes_pods),
    )
    run = await engine_loop().run(
        unless_stopped(checking, task_id, deadline_at, minutes, while_="it was being checked")
    )
    progress.model_version = run.model_version or ""
    await resolved_environment(service)  # a missing block is found now, not when the instance starts
    for warning in run.warnings:
        get_run_logger().warning(warning)
    times = {"start_seconds": progress.start_seconds, "validate_seconds": clock.now() - progress.flow_began_at}
    return run.model_copy(update={"deadline_at": deadline_at, **times})


async def _pools(service: BatchService, settings: Settings) -> dict[str, Pool] | None:
    """The pools of the server for the run of a deployed service.

    For other runs the pools of the administrator's files, and the server's if the service's pool is not in the files.
    None if the files are invalid, which is reported with the other problems.
    """
    own = own_flow_run()
    there: dict[str, Pool] = {}
    if own is None or own.deployment_id is None:
        try:
            there = read_pools(settings.pools)
        except SpecificationError:
            return None
        if service.resource_pool in there:
            return there
    async with get_client() as client:
        return dict(sorted({**await server_pools(client), **there}.items()))
