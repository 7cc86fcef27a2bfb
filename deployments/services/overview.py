"""Queries for services, all or one, with the status of their last runs."""

from __future__ import annotations

import asyncio
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse

from deployments.services.service import Execution, Service
from flows.calling import callable_anywhere
from tasks.prefect_side import api
from tasks.prefect_side.server import prefect_server


@callable_anywhere
async def list_services() -> list[Service]:
    """Every service of the server, by name. Raises ServerError."""
    async with prefect_server() as client:
        pages: list[list[DeploymentResponse]] = []
        asking: list[asyncio.Task[dict[UUID, FlowRun]]] = []
        try:
            async for page in api.services(client):
                pages.append(page)  # its runs are requested at the same time as the next page
                asking.append(asyncio.create_task(api.newest_runs(client, [one.id for one in page])))
            last = {key: run for runs_of_page in await asyncio.gather(*asking) for key, run in runs_of_page.items()}
        finally:
            for task in asking:
                task.cancel()
        return [Service.of(one, last.get(one.id)) for page in pages for one in page]


@callable_anywhere
async def show(name: str) -> Service:
    """One service. Raises SpecificationError if it does not exist, ServerError."""
    async with prefect_server() as client:
        return await read_service(client, name)


@callable_anywhere
async def runs(name: str, limit: int = 20) -> list[Execution]:
    """The last runs of a service, newest first. Raises SpecificationError if it does not exist, ServerError."""
    async with prefect_server() as client:
        deployment = await api.service(client, name)
        return [Execution.of(one) for one in await api.last_runs(client, [deployment.id], limit)]


async def read_service(client: PrefectClient, name: str) -> Service:
    """One service with its last run. Raises SpecificationError if it does not exist."""
    deployment = await api.service(client, name)
    last = await api.newest_runs(client, [deployment.id])
    return Service.of(deployment, last.get(deployment.id))
