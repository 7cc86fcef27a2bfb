"""Resource pools on a Prefect server: applied from files, listed, shown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.client.schemas.objects import WorkPool
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound
from pydantic import BaseModel

from deployments.services.service import queue_of, specification_of
from deployments.set_up.form_deployment import CONSOLE_POOL, register_console
from deployments.set_up.zombies import create_automations
from deployments.templates.form import form
from deployments.templates.pool_templates import base_job_template, job_variables
from deployments.templates.work_pools import put_work_pool
from flows.batch_service import batch_service
from flows.calling import callable_anywhere
from tasks.clients.pool_files import read_pools
from tasks.domain.errors import Problem, SpecificationError
from tasks.domain.pool import Flavor, Pool
from tasks.domain.settings import read_settings
from tasks.prefect_side.api import pool_of, server_pools, services
from tasks.prefect_side.server import prefect_server, ui_url

PRIORITIES = (3, 2, 1)
"""Highest first. Prefect counts in the opposite order: its priority 1 is the highest."""


class PoolState(BaseModel, frozen=True):
    """A resource pool, as shown to the user."""

    name: str
    kind: str
    access: str
    contact: str
    max_runs: int | None
    flavors: tuple[Flavor, ...]
    status: str
    """``ready`` if a worker has sent a heartbeat lately, ``not ready``, or ``paused``."""
    workers: tuple[str, ...] = ()
    page: str

    @classmethod
    def of(cls, pool: Pool, work_pool: WorkPool, workers: tuple[str, ...] = ()) -> PoolState:
        """The state of a pool, from its work pool."""
        status = str(getattr(work_pool.status, "value", work_pool.status) or "not ready")
        return cls(
            name=pool.name,
            kind=pool.kind,
            access=pool.access,
            contact=pool.contact,
            max_runs=work_pool.concurrency_limit,
            flavors=pool.flavors,
            status=status.lower().replace("_", " "),
            workers=workers,
            page=ui_url(f"work-pools/work-pool/{pool.name}"),
        )


@callable_anywhere
async def apply_pools(folder: Path | None = None) -> list[PoolState]:
    """Create or update the pools of a folder's files, the automations that find vanished runs, and the console.

    The services of these pools are updated. Pools without a file are left alone. Raises SpecificationError,
    ServerError.
    """
    settings = read_settings()
    pools = read_pools(folder or settings.pools)
    if not pools:
        raise SpecificationError(
            [Problem("THRESHER_POOLS", str(folder or settings.pools), "there is no pool file (*.yaml) in it")]
        )
    if CONSOLE_POOL in pools:
        expected = "is the name of the work pool on which the form that deploys services runs: rename this pool"
        raise SpecificationError([Problem(f"{CONSOLE_POOL}: name", CONSOLE_POOL, expected)])
    async with prefect_server() as client:
        for pool in pools.values():
            await _apply(client, pool)
        await create_automations(client, settings.zombie_seconds)
        await register_console(client, await server_pools(client))
        await _renew_services(client, pools)
        return [PoolState.of(pool, await client.read_work_pool(name)) for name, pool in pools.items()]


async def _apply(client: PrefectClient, pool: Pool) -> None:
    detail = f"{pool.access} resource pool; contact {pool.contact}"
    await put_work_pool(client, pool.name, pool.kind, detail, base_job_template(pool), pool.max_runs)
    queues = {queue.name for queue in await client.read_work_queues(work_pool_name=pool.name)}
    for place, name in enumerate(map(queue_of, PRIORITIES), start=1):
        if name not in queues:
            await client.create_work_queue(name=name, work_pool_name=pool.name, priority=place)


async def _renew_services(client: PrefectClient, pools: Mapping[str, Pool]) -> None:
    """Update the form and the job variables of the services of these pools, where they differ.

    An existing service can then be started with a new flavor, and gets the current resources of its own.
    """
    forms = {name: json.loads(json.dumps(form(batch_service, {name: pool}))) for name, pool in pools.items()}
    for deployment in [one async for page in services(client) for one in page]:
        pool = pools.get(deployment.work_pool_name or "")
        if pool is None:
            continue
        wanted = {"parameter_openapi_schema": forms[pool.name], "job_variables": _job(deployment, pool)}
        changed = {name: value for name, value in wanted.items() if getattr(deployment, name) != value}
        if changed:
            await client.update_deployment(deployment.id, DeploymentUpdate(**changed))


def _job(deployment: DeploymentResponse, pool: Pool) -> dict[str, Any]:
    """The job variables of a service; unchanged if it names no flavor, or one that is no longer offered."""
    fields = specification_of(deployment)
    flavor = pool.flavor(str(fields.get("flavor")))
    if flavor is None:
        return deployment.job_variables
    return job_variables(pool, flavor, int(fields.get("instances") or 1))


@callable_anywhere
async def list_pools() -> list[PoolState]:
    """The resource pools of the server, by name. Raises ServerError."""
    async with prefect_server() as client:
        pools = await server_pools(client)
        return [PoolState.of(pool, await client.read_work_pool(name)) for name, pool in pools.items()]


@callable_anywhere
async def show_pool(name: str) -> PoolState:
    """One pool with its workers. Raises SpecificationError if it does not exist, ServerError."""
    async with prefect_server() as client:
        try:
            work_pool = await client.read_work_pool(name)
            pool = pool_of(work_pool.base_job_template)
        except ObjectNotFound:
            pool = None
        if pool is None:
            there = ", ".join(await server_pools(client)) or "none"
            expected = f"there is no such resource pool, contact the administrator; there are: {there}"
            raise SpecificationError([Problem("NAME", name, expected)])
        return PoolState.of(pool, work_pool, await _online(client, name))


async def online_workers(name: str) -> tuple[str, ...]:
    """The workers of a work pool with a recent heartbeat. Raises ServerError."""
    async with prefect_server() as client:
        return await _online(client, name)


async def _online(client: PrefectClient, name: str) -> tuple[str, ...]:
    workers = await client.read_workers_for_work_pool(name)
    return tuple(one.name for one in workers if str(getattr(one.status, "value", one.status)) == "ONLINE")
