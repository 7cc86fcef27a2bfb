"""Queries for services, all or one, with the status of their last runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
from prefect.client.orchestration import PrefectClient

from deployments.services.service import FLOW, Execution, Service
from flows.calling import callable_anywhere
from tasks.domain.errors import Problem, SpecificationError
from tasks.domain.status import ACTIVE_STATES
from tasks.prefect_side.server import prefect_server

CLOCK_SKEW = timedelta(seconds=5)
"""How far the server's clock may be ahead of this machine's."""
_PAGE = 200
_OF_THE_FLOW = {"flows": {"name": {"any_": [FLOW]}}}


@callable_anywhere
async def list_services() -> list[Service]:
    """Every service of the server, by name. Raises ServerError."""
    async with prefect_server() as client:
        pages: list[list[dict[str, Any]]] = []
        asking: list[asyncio.Task[dict[str, dict[str, Any]]]] = []
        try:
            async for page in _pages(client, "/deployments/filter", {**_OF_THE_FLOW, "sort": "NAME_ASC"}):
                pages.append(page)  # its runs are requested at the same time as the next page
                asking.append(asyncio.create_task(_last_runs(client, [one["id"] for one in page])))
            last = {key: run for runs_of_page in await asyncio.gather(*asking) for key, run in runs_of_page.items()}
        finally:
            for task in asking:
                task.cancel()
        return [Service.of(one, last.get(one["id"])) for page in pages for one in page]


@callable_anywhere
async def show(name: str) -> Service:
    """One service. Raises SpecificationError if it does not exist, ServerError."""
    async with prefect_server() as client:
        return await read_service(client, name)


@callable_anywhere
async def runs(name: str, limit: int = 20) -> list[Execution]:
    """The last runs of a service, newest first. Raises SpecificationError if it does not exist, ServerError."""
    async with prefect_server() as client:
        deployment = await find(client, name)
        body = {**_due(), "deployments": {"id": {"any_": [deployment["id"]]}}, "sort": "EXPECTED_START_TIME_DESC"}
        answer = await client._client.post("/flow_runs/filter", json={**body, "limit": limit})
        return [Execution.of(one) for one in answer.json()]


async def read_service(client: PrefectClient, name: str) -> Service:
    """One service with its last run. Raises SpecificationError if it does not exist."""
    deployment = await find(client, name)
    last = await _last_runs(client, [deployment["id"]])
    return Service.of(deployment, last.get(deployment["id"]))


async def find(client: PrefectClient, name: str) -> dict[str, Any]:
    """The deployment of a service, as the API returns it. Raises SpecificationError if it does not exist."""
    if (found := await look_up(client, name)) is None:
        expected = "there is no such service; `thresher list` shows those that there are"
        raise SpecificationError([Problem("NAME", name, expected)])
    return found


async def find_run(client: PrefectClient, run: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The deployment of the service that a run belongs to, and the flow run, as the API returns them.

    Raises SpecificationError if the run does not exist or belongs to no service.
    """
    try:
        body = {**_OF_THE_FLOW, "flow_runs": {"id": {"any_": [str(UUID(run))]}}}
    except ValueError:
        expected = "should be the id of a run; `thresher show NAME --runs` shows those of a service"
        raise SpecificationError([Problem("RUN", run, expected)]) from None
    found = (await client._client.post("/flow_runs/filter", json=body)).json()
    if not found:
        expected = "there is no such run on this server; `thresher show NAME --runs` shows those of a service"
        raise SpecificationError([Problem("RUN", run, expected)])
    service = found[0].get("deployment_id")
    deployment = None if service is None else await _first(client, {"id": {"any_": [service]}})
    if deployment is None:
        expected = (
            "belongs to no service that is still there: give its output manifest to "
            "`thresher run SPEC --retry-failed MANIFEST`"
        )
        raise SpecificationError([Problem("RUN", run, expected)])
    return deployment, found[0]


async def look_up(client: PrefectClient, name: str) -> dict[str, Any] | None:
    """The deployment of a service, as the API returns it, or None."""
    return await _first(client, {"name": {"any_": [name]}})


async def _first(client: PrefectClient, deployments: Mapping[str, Any]) -> dict[str, Any] | None:
    body = {**_OF_THE_FLOW, "deployments": deployments, "limit": 1}
    answer = await client._client.post("/deployments/filter", json=body)
    found: list[dict[str, Any]] = answer.json()
    return found[0] if found else None


def all_deployments(client: PrefectClient) -> AsyncIterator[dict[str, Any]]:
    """The deployments of all services, by name, as the API returns them."""
    return each(client, "/deployments/filter", {**_OF_THE_FLOW, "sort": "NAME_ASC"})


async def count(client: PrefectClient) -> int:
    """The number of services on the server."""
    return int((await client._client.post("/deployments/count", json=_OF_THE_FLOW)).json())


async def active_runs(client: PrefectClient, deployment_id: str) -> list[dict[str, Any]]:
    """The flow runs of a service that are running or due, without the future runs of its schedule."""
    body = {
        "deployments": {"id": {"any_": [deployment_id]}},
        "flow_runs": {**_due()["flow_runs"], "state": {"type": {"any_": list(ACTIVE_STATES)}}},
    }
    return [one async for one in each(client, "/flow_runs/filter", body)]


def _due() -> dict[str, Any]:
    """Filter for the runs that are due: a schedule also creates runs in advance."""
    now = datetime.now(UTC) + CLOCK_SKEW
    return {"flow_runs": {"expected_start_time": {"before_": now.isoformat()}}}


async def _last_runs(client: PrefectClient, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The newest run of each deployment that has one.

    Each page of runs, newest first, excludes the deployments already seen, so that those with many runs do not hide
    the others.
    """
    newest: dict[str, dict[str, Any]] = {}
    unseen = list(ids)
    while unseen:
        body = {
            "flow_runs": {**_due()["flow_runs"], "deployment_id": {"any_": unseen}},
            "sort": "EXPECTED_START_TIME_DESC",
            "limit": _PAGE,
        }
        page = orjson.loads((await client._client.post("/flow_runs/filter", json=body)).content)
        for flow_run in page:
            newest.setdefault(flow_run["deployment_id"], flow_run)
        if len(page) < _PAGE:
            break
        unseen = [one for one in unseen if one not in newest]
    return newest


async def each(client: PrefectClient, path: str, body: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    """All results of a filter request to the API."""
    async for page in _pages(client, path, body):
        for one in page:
            yield one


async def _pages(client: PrefectClient, path: str, body: dict[str, Any]) -> AsyncIterator[list[dict[str, Any]]]:
    offset = 0
    while True:
        answer = await client._client.post(path, json={**body, "limit": _PAGE, "offset": offset})
        page = orjson.loads(answer.content)  # a thousand services are several megabytes
        yield page
        if len(page) < _PAGE:
            return
        offset += _PAGE
