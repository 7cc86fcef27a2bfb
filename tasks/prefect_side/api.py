"""What the Prefect server knows of services, their runs, logs and events, and of resource pools: typed, all pages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun, Log, WorkPool
from prefect.client.schemas.responses import DeploymentResponse
from prefect.events.schemas.events import Event
from prefect.exceptions import ObjectNotFound
from pydantic import BaseModel, ValidationError

from tasks.domain.errors import Problem, SpecificationError
from tasks.domain.pool import Pool
from tasks.domain.status import ACTIVE_STATES

if TYPE_CHECKING:
    from prefect.client.orchestration.routes import ServerRoutes

FLOW = "batch_service"
POOL_KEY = "thresher"
"""The key of a work pool's base job template that holds the pool it was made from; Prefect keeps it untouched."""
CLOCK_SKEW = timedelta(seconds=5)
"""How far the server's clock may be ahead of this machine's."""
_PAGE = 200
_OF_SERVICES = {"flows": {"name": {"any_": [FLOW]}}}
Found = TypeVar("Found", bound=BaseModel)


def services(client: PrefectClient) -> AsyncIterator[list[DeploymentResponse]]:
    """The services of the server by name, a page at a time."""
    return _pages(client, "/deployments/filter", DeploymentResponse, **_OF_SERVICES, sort="NAME_ASC")


async def count_services(client: PrefectClient) -> int:
    """The number of services on the server."""
    return int((await client.request("POST", "/deployments/count", json=_OF_SERVICES)).json())


async def service(client: PrefectClient, name: str) -> DeploymentResponse:
    """A service by its name. Raises SpecificationError if it does not exist."""
    if (found := await look_up(client, name=name)) is None:
        expected = "there is no such service; `thresher list` shows those that there are"
        raise SpecificationError([Problem("NAME", name, expected)])
    return found


async def look_up(client: PrefectClient, **by: str) -> DeploymentResponse | None:
    """The service with this name, or this id; None if there is none."""
    wanted = {field: {"any_": [value]} for field, value in by.items()}
    found = await _page(client, "/deployments/filter", DeploymentResponse, **_OF_SERVICES, deployments=wanted, limit=1)
    return found[0] if found else None


async def run_by_id(client: PrefectClient, field: str, run: str, where: str) -> FlowRun:
    """A run by its id, given as ``field``. Raises SpecificationError if there is none ``where`` it was looked for."""
    try:
        return await client.read_flow_run(UUID(run))
    except ValueError:
        expected = "should be the id of a run, such as 5f0c2d1e-...: the part of its files' names after infer-result-"
        raise SpecificationError([Problem(field, run, expected)]) from None
    except ObjectNotFound:
        raise SpecificationError([Problem(field, run, f"there is no such run {where}")]) from None


async def run_of(client: PrefectClient, deployment: DeploymentResponse, field: str, run: str) -> FlowRun:
    """A run of a service by its id, given as ``field``. Raises SpecificationError if the service has no such run."""
    of_it = f"of {deployment.name}; `thresher show {deployment.name} --runs` shows those that there are"
    found = await run_by_id(client, field, run, of_it)
    if found.deployment_id != deployment.id:
        raise SpecificationError([Problem(field, run, f"is not a run {of_it}")])
    return found


async def last_runs(client: PrefectClient, deployments: Collection[UUID], limit: int) -> list[FlowRun]:
    """The last runs of these services that are due, newest first."""
    of_them = {**_due(), "deployment_id": {"any_": [str(one) for one in deployments]}}
    newest = "EXPECTED_START_TIME_DESC"
    return await _page(client, "/flow_runs/filter", FlowRun, flow_runs=of_them, sort=newest, limit=limit)


async def newest_runs(client: PrefectClient, deployments: Collection[UUID]) -> dict[UUID, FlowRun]:
    """The newest run of each service that has one.

    Each page of runs, newest first, excludes the services already seen, so that those with many runs do not hide the
    others.
    """
    newest: dict[UUID, FlowRun] = {}
    while unseen := [one for one in deployments if one not in newest]:
        page = await last_runs(client, unseen, _PAGE)
        for flow_run in page:
            newest.setdefault(cast(UUID, flow_run.deployment_id), flow_run)
        if len(page) < _PAGE:
            break
    return newest


async def active_runs(client: PrefectClient, deployment_id: UUID) -> list[FlowRun]:
    """The runs of a service that are running or due, without the future runs of its schedule."""
    of_it = {**_due(), **_in_state(*ACTIVE_STATES), "deployment_id": {"any_": [str(deployment_id)]}}
    return await _all(client, "/flow_runs/filter", FlowRun, flow_runs=of_it)


async def has_run_tagged(client: PrefectClient, deployment_id: UUID, tag: str) -> bool:
    """Whether a run of a service has a tag."""
    wanted = {"deployment_id": {"any_": [str(deployment_id)]}, "tags": {"all_": [tag]}}
    return bool(await _page(client, "/flow_runs/filter", FlowRun, flow_runs=wanted, limit=1))


async def runs_of_workers(client: PrefectClient, workers: str, *, of_services: bool) -> list[FlowRun]:
    """The runs that workers whose names begin with ``workers`` have taken and that have not ended.

    Of all flows, or only those ``of_services``. All are read before any is returned: ended runs would shift the pages.
    """
    body = {**(_OF_SERVICES if of_services else {}), "flow_runs": _in_state("PENDING", "RUNNING", "CANCELLING")}
    found = await _all(client, "/flow_runs/filter", FlowRun, **body)
    return [one for one in found if str(one.labels.get("prefect.worker.name", "")).startswith(workers)]


def _in_state(*types: str) -> dict[str, Any]:
    return {"state": {"type": {"any_": types}}}


def _due() -> dict[str, Any]:
    """Filter for the runs that are due: a schedule also creates runs in advance."""
    return {"expected_start_time": {"before_": (datetime.now(UTC) + CLOCK_SKEW).isoformat()}}


def logs(client: PrefectClient, run: UUID, since: datetime | None) -> AsyncIterator[list[Log]]:
    """The lines of a run's Logs tab after a time, or all, a page at a time."""
    wanted: dict[str, Any] = {"flow_run_id": {"any_": [str(run)]}}
    if since is not None:
        wanted["timestamp"] = {"after_": since.isoformat()}
    return _pages(client, "/logs/filter", Log, logs=wanted, sort="TIMESTAMP_ASC")


async def last_event(client: PrefectClient, run: UUID, name: str) -> Event | None:
    """The last event of this name of a run; None if there is none."""
    wanted = {"event": {"name": [name]}, "resource": {"id": [f"prefect.flow-run.{run}"]}, "order": "DESC"}
    answer = await client.request("POST", "/events/filter", json={"filter": wanted, "limit": 1})
    found = answer.json()["events"]
    return Event.model_validate(found[0]) if found else None


async def server_pools(client: PrefectClient) -> dict[str, Pool]:
    """The resource pools of the server, by name: its work pools that were made from pool files."""
    found = {one.name: pool_of(one.base_job_template) for one in await _all(client, "/work_pools/filter", WorkPool)}
    return {name: pool for name, pool in sorted(found.items()) if pool is not None}


def pool_of(base_job_template: Mapping[str, Any]) -> Pool | None:
    """The pool that a work pool was made from; None if the work pool is not Thresher's."""
    try:
        return Pool.model_validate(base_job_template[POOL_KEY])
    except (KeyError, ValidationError):
        return None


async def _all(client: PrefectClient, path: ServerRoutes, kind: type[Found], **wanted: Any) -> list[Found]:
    return [one async for page in _pages(client, path, kind, **wanted) for one in page]


async def _pages(
    client: PrefectClient, path: ServerRoutes, kind: type[Found], **wanted: Any
) -> AsyncIterator[list[Found]]:
    offset, page = 0, None
    while page is None or len(page) == _PAGE:
        page = await _page(client, path, kind, **wanted, limit=_PAGE, offset=offset)
        offset += len(page)
        yield page


async def _page(client: PrefectClient, path: ServerRoutes, kind: type[Found], **wanted: Any) -> list[Found]:
    answer = await client.request("POST", path, json=wanted)
    return [kind.model_validate(one) for one in answer.json()]
