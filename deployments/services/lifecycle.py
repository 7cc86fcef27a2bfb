"""The life cycle of a service: deploy, start, stop, edit, schedule, delete. For synchronous and async code."""

from __future__ import annotations

import asyncio
import copy
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.responses import DeploymentResponse
from prefect.states import Cancelled, Cancelling

from deployments.services.lock import one_at_a_time
from deployments.services.overview import read_service
from deployments.services.resuming import FIELD, begin_again, check_resumable, where_it_was
from deployments.services.service import (
    ENTRYPOINT,
    TAG,
    Execution,
    Service,
    parameters_of,
    queue_of,
    schedules_of,
    specification_of,
)
from deployments.services.specification import absolute, override
from deployments.templates.form import form
from deployments.templates.pool_templates import job_variables
from flows.batch_service import batch_service
from flows.calling import callable_anywhere
from tasks.domain.errors import Problem, ServerError, SpecificationError
from tasks.domain.pool import Pool
from tasks.domain.relative_paths import relative_paths
from tasks.domain.service import BatchService
from tasks.domain.settings import read_settings
from tasks.domain.specification import require
from tasks.domain.status import ACTIVE_STATES
from tasks.engine.checking import check
from tasks.engine.loop import engine_loop
from tasks.prefect_side import api
from tasks.prefect_side.as_deployed import KEPT_TAG, fixed_fields, log_output_kept
from tasks.prefect_side.blocks import resolved_environment, storage_credentials
from tasks.prefect_side.server import prefect_server

ENDED_SECONDS = 90.0
"""A stopped run has ended within this time: Prefect's worker kills its process after 30 s."""
_POLL_SECONDS = 0.5
_OF_THE_SERVICE = ("description", "schedule", "runtime_log_output")
"""Fields that a retry of failed items takes from the service, not from the earlier run."""

Overrides = Mapping[str, Any] | Sequence[str]
"""Changed fields, or texts in the format of ``--set``."""


@callable_anywhere
async def deploy(specification: BatchService | Mapping[str, Any], *, folder: Path | None = None) -> Service:
    """Create a service and start its first run.

    ``specification`` holds the fields; relative local paths are taken from ``folder`` (default: the working directory).
    Raises SpecificationError with every problem (nothing is created then), ServerError.
    """
    if isinstance(specification, BatchService):
        specification = specification.model_dump(mode="json", by_alias=True)
    return await create(absolute(specification, folder or Path.cwd()))


async def create(fields: Mapping[str, Any]) -> Service:
    """Like :func:`deploy`, but paths are not resolved: a relative local path is a problem like any other."""
    async with prefect_server() as client:
        named = {"name": BatchService.model_fields["name"].get_default(call_default_factory=True), **fields}
        service, pool, variables = await _checked(client, named, await _name_problems(client, named.get("name")))
        async with one_at_a_time(client):
            if problems := await _name_problems(client, service.name):  # another deployment came first
                raise SpecificationError(problems)
            flow_id = await client.create_flow(batch_service)
            deployment_id = await client.create_deployment(
                flow_id=flow_id,
                name=service.name,
                description=service.description,
                entrypoint=ENTRYPOINT,
                pull_steps=[],
                work_pool_name=service.resource_pool,
                work_queue_name=queue_of(service.priority),
                parameters=parameters_of(service),
                parameter_openapi_schema=form(batch_service, {service.resource_pool: pool}),
                enforce_parameter_schema=True,
                schedules=schedules_of(service.schedule),
                tags=[TAG, KEPT_TAG] if service.runtime_log_output else [TAG],
                job_variables=variables,
            )
        await client.create_flow_run_from_deployment(deployment_id)
        return await read_service(client, service.name)


@callable_anywhere
async def start(name: str, overrides: Overrides = ()) -> Execution:
    """Start a service again, with some fields changed for this run only.

    ``overrides`` are fields, or texts in the format of ``--set``: ``environment.A=1`` changes one variable of several.
    Raises SpecificationError with every problem (nothing is started then), ServerError.
    """
    async with prefect_server() as client:
        deployment = await api.service(client, name)
        return await _start(client, deployment, _changed(specification_of(deployment), overrides))


@callable_anywhere
async def retry_failed(
    run: str, overrides: Overrides = (), *, merge: bool = False, output_path: str | None = None
) -> Execution:
    """Start a run of exactly the FAILED items of the earlier run ``run`` (an id), whose files stay unchanged.

    It has the earlier run's fields; ``overrides`` as for :func:`start`. The new manifest lists only these items, or
    with ``merge`` all items of the earlier one. Raises SpecificationError with every problem (nothing is started then),
    also if the earlier run is still active, or has no output manifest or FAILED item. Raises ServerError.
    """
    async with prefect_server() as client:
        deployment, flow_run = await _service_of_run(client, run)
        earlier = Execution.of(flow_run)
        if flow_run.state_type in ACTIVE_STATES:
            expected = f"is still active (its status is {earlier.status}): wait until it has ended, or stop it first"
            raise SpecificationError([Problem("RUN", run, expected)])
        if not earlier.manifest:
            expected = f"has published no output manifest (its status is {earlier.status}): {earlier.message}"
            raise SpecificationError([Problem("RUN", run, expected)])
        fields = {
            **{name: held for name, held in specification_of(flow_run).items() if name not in _OF_THE_SERVICE},
            **{name: held for name, held in specification_of(deployment).items() if name in _OF_THE_SERVICE},
            **{"failed_of": earlier.manifest, "merge": merge},
        }
        if output_path is not None:
            fields["output_path"] = output_path
        return await _start(client, deployment, _changed(fields, overrides))


async def _service_of_run(client: PrefectClient, run: str) -> tuple[DeploymentResponse, FlowRun]:
    """The service that a run belongs to, and the run. Raises SpecificationError if either does not exist."""
    where = "on this server; `thresher show NAME --runs` shows those of a service"
    flow_run = await api.run_by_id(client, "RUN", run, where)
    service = flow_run.deployment_id and await api.look_up(client, id=str(flow_run.deployment_id))
    if not service:
        expected = (
            "belongs to no service that is still there: give its output manifest to "
            "`thresher run SPEC --retry-failed MANIFEST`"
        )
        raise SpecificationError([Problem("RUN", run, expected)])
    return service, flow_run


async def _start(client: PrefectClient, deployment: DeploymentResponse, fields: Mapping[str, Any]) -> Execution:
    """Start a run of a service with these fields. Raises SpecificationError with every problem."""
    problems = await _not_its_own(client, deployment, fields)
    service, _, variables = await _checked(client, fields, problems)
    flow_run = await client.create_flow_run_from_deployment(
        deployment.id,
        parameters=parameters_of(service),
        work_queue_name=queue_of(service.priority),
        job_variables=variables,
    )
    return Execution.of(flow_run)


@callable_anywhere
async def resume(name: str, run: str, overrides: Overrides = ()) -> Execution:
    """Resume, under its id, a run of a service that ended, or whose process vanished, before it published.

    It keeps its plan and its parameters, except for ``overrides`` (as for :func:`start`), and repeats nothing that was
    finished. Raises SpecificationError if it is complete, active, or not a run of the service; ServerError.
    """
    async with prefect_server() as client:
        deployment = await api.service(client, name)
        flow_run = await api.run_of(client, deployment, FIELD, run)
        await check_resumable(client, flow_run)
        detail = "Resumed by thresher start --resume."
        changed = await _resumed_with(client, deployment, flow_run, overrides) if overrides else (None, None)
        begun = await begin_again(client, flow_run, detail, *changed)
        return Execution.of(begun)


async def _resumed_with(
    client: PrefectClient, deployment: DeploymentResponse, flow_run: FlowRun, overrides: Overrides
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields of a run with ``overrides`` applied, and the job variables for them.

    Raises SpecificationError with every problem.
    """
    before = specification_of(flow_run)
    fields = _changed(before, overrides)
    problems = await _not_its_own(client, deployment, fields) + where_it_was(before, fields)
    service, _, variables = await _checked(client, fields, problems, flow_run)
    return dict(parameters_of(service)["service"]), variables


@callable_anywhere
async def stop(name: str, *, wait: bool = False) -> Service:
    """Stop a service's runs: instances end within seconds, and a manifest accounts for every item.

    With ``wait``, return when they have ended. Raises SpecificationError if no run is active, ServerError.
    """
    async with prefect_server() as client:
        deployment = await api.service(client, name)
        if not await _cancel(client, deployment.id):
            service = await read_service(client, name)
            expected = f"has no run that could be stopped (its status is {service.status})"
            raise SpecificationError([Problem("NAME", name, expected)])
        if wait and await _still_active(client, deployment.id):
            raise ServerError(
                f"The runs of {name} have not ended within {ENDED_SECONDS:g} s: is there a worker of the resource pool "
                f"{deployment.work_pool_name}?"
            )
        return await read_service(client, name)


@callable_anywhere
async def edit(name: str, *, description: str) -> Service:
    """Change a service's description. Raises SpecificationError, ServerError."""
    async with prefect_server() as client:
        deployment = await api.service(client, name)
        fields = specification_of(deployment)
        service = require({**fields, "description": description})
        update = DeploymentUpdate(description=service.description, parameters=parameters_of(service))
        await client.update_deployment(deployment.id, update)
        return await read_service(client, name)


@callable_anywhere
async def schedule(name: str, when: Mapping[str, Any] | None) -> Service:
    """Set a service's schedule, with the fields cron or interval_minutes, and timezone; None removes it.

    Raises SpecificationError, ServerError.
    """
    async with prefect_server() as client:
        deployment = await api.service(client, name)
        service = require({**specification_of(deployment), "schedule": when})
        earlier = await client.read_deployment_schedules(deployment.id)
        if made := schedules_of(service.schedule):
            await client.create_deployment_schedules(deployment.id, [(one.schedule, True) for one in made])
        for one in earlier:
            await client.delete_deployment_schedule(deployment.id, one.id)
        await client.update_deployment(deployment.id, DeploymentUpdate(parameters=parameters_of(service)))
        return await read_service(client, name)


@callable_anywhere
async def delete(name: str, *, force: bool = False) -> tuple[str, ...]:
    """Delete a service, but not the output of its runs. With ``force`` its active runs are stopped first.

    Runs that do not end in time, because no process is left to end them, are set to Cancelled; returns their ids.
    Raises SpecificationError if it has active runs and ``force`` is not given, ServerError.
    """
    given_up: list[FlowRun] = []
    async with prefect_server() as client:
        deployment = await api.service(client, name)
        if active := await api.active_runs(client, deployment.id):
            if not force:
                expected = (
                    f"has {len(active)} active run{'s' if len(active) > 1 else ''}: stop it first, or use --force"
                )
                raise SpecificationError([Problem("NAME", name, expected)])
            await _cancel(client, deployment.id)
            given_up = await _still_active(client, deployment.id)
            never = f"it had not ended {ENDED_SECONDS:g} s after the request to stop."
            for flow_run in given_up:
                state: State[None] = Cancelled(message=f"Given up by thresher delete --force: {never}")
                await client.set_flow_run_state(flow_run.id, state, force=True)
        await client.delete_deployment(deployment.id)
    return tuple(str(flow_run.id) for flow_run in given_up)


@callable_anywhere
async def wait_for(task_id: str) -> Execution:
    """A run, once it has ended. Raises SpecificationError if this is no id of a run, ServerError."""
    try:
        wanted = UUID(task_id)
    except ValueError:
        raise SpecificationError([Problem("RUN", task_id, "should be the id of a run")]) from None
    async with prefect_server() as client:
        while True:
            flow_run = await client.read_flow_run(wanted)
            if flow_run.state is not None and flow_run.state.is_final():
                return Execution.of(flow_run)
            await asyncio.sleep(_POLL_SECONDS)


async def _not_its_own(
    client: PrefectClient, deployment: DeploymentResponse, fields: Mapping[str, Any]
) -> list[Problem]:
    """Problems of fields that belong to the service and may not differ in its runs."""
    problems = fixed_fields(deployment.name, deployment.work_pool_name, fields)
    return problems + await log_output_kept(client, deployment.id, deployment.tags, fields)


def _changed(fields: Mapping[str, Any], overrides: Overrides) -> dict[str, Any]:
    changed = copy.deepcopy(dict(fields))
    if isinstance(overrides, Mapping):
        changed.update(overrides)
    else:
        override(changed, overrides)
    return changed


async def _checked(
    client: PrefectClient, fields: Mapping[str, Any], problems: list[Problem], again: FlowRun | None = None
) -> tuple[BatchService, Pool, dict[str, Any]]:
    """What a run of these fields is, a new one, or ``again`` if given: its service, pool and job variables.

    Raises SpecificationError with ``problems`` and all others.
    """
    settings = read_settings()
    pools = await api.server_pools(client)
    run = await engine_loop().run(
        check(
            dict(fields),
            task_id=str(again.id if again else uuid.uuid4()),
            scheduled_time=(again and again.expected_start_time) or datetime.now(UTC),
            settings=settings,
            credentials=await storage_credentials(settings),
            pools=pools,
            known=[*problems, *relative_paths(fields)],
        )
    )
    await resolved_environment(run.service)  # a missing block is found now, not in each run
    pool = pools[run.service.resource_pool]
    return run.service, pool, job_variables(pool, run.flavor, run.service.instances)


async def _name_problems(client: PrefectClient, name: object) -> list[Problem]:
    problems = []
    if isinstance(name, str) and await api.look_up(client, name=name) is not None:
        expected = "a service of this name exists; take another name, or delete that service first"
        problems.append(Problem("name", name, expected))
    bound = read_settings().max_services
    if await api.count_services(client) >= bound:
        expected = f"there are {bound} services already, no more are allowed: delete one that is not needed"
        problems.append(Problem("name", name, expected))
    return problems


async def _cancel(client: PrefectClient, deployment_id: UUID) -> int:
    """Set a service's active runs to Cancelling and return their number. No worker would stop a Cancelled run."""
    active = await api.active_runs(client, deployment_id)
    for flow_run in active:
        if flow_run.state_type != "CANCELLING":
            await client.set_flow_run_state(flow_run.id, Cancelling(message="Stopped by thresher stop."))
    return len(active)


async def _still_active(client: PrefectClient, deployment_id: UUID) -> list[FlowRun]:
    """Wait for a service's runs to end: those still active when the time is up."""
    deadline = asyncio.get_running_loop().time() + ENDED_SECONDS
    while (active := await api.active_runs(client, deployment_id)) and asyncio.get_running_loop().time() <= deadline:
        await asyncio.sleep(_POLL_SECONDS)
    return active
