"""What a run may not change of its service, however the run was started."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.client.schemas.objects import FlowRun

from tasks.domain.errors import Problem
from tasks.domain.relative_paths import relative_paths
from tasks.domain.service import BatchService
from tasks.prefect_side.api import has_run_tagged
from tasks.prefect_side.own_run import own_flow_run

KEPT_TAG = "runtime-log-output"
"""Tag of services for which runtime log output was ever on, and of the runs that had it on."""
_OF_THE_JOB = ("flavor", "instances")
"""Fields that determine the size of a run's container, which exists before the run begins."""


def fixed_fields(name: str, pool: str | None, fields: Mapping[str, Any]) -> list[Problem]:
    """Problems of fields that belong to the service of this name and pool, not to one of its runs."""
    problems = []
    if fields.get("name") != name:
        problems.append(Problem("name", fields.get("name"), f"is {name} and cannot be changed: deploy another service"))
    if fields.get("resource_pool") != pool:
        expected = f"is {pool} for this service: deploy another service for another pool"
        problems.append(Problem("resource_pool", fields.get("resource_pool"), expected))
    return problems


async def log_output_kept(
    client: PrefectClient, deployment_id: UUID, tags: Collection[str], fields: Mapping[str, Any]
) -> list[Problem]:
    """A problem if runtime log output is turned off again: readers of the log store must be able to rely on it.

    That it was on is known from the service's tags, or from those of its runs if the service's tag was removed.
    """
    if fields.get("runtime_log_output"):
        return []
    if KEPT_TAG not in tags and not await has_run_tagged(client, deployment_id, KEPT_TAG):
        return []
    expected = "was true for this service and cannot be set back: deploy another service without it"
    return [Problem("runtime_log_output", False, expected)]


async def not_as_deployed(service: BatchService, *, in_pods: bool = False) -> list[Problem]:
    """Every conflict between this process's run and its service; empty for a run without a service.

    Instances ``in_pods`` are made for each run, so the size of the run's own container does not matter for them.

    The user interface and Prefect's own clients start runs without asking Thresher, and can change any field.
    """
    own = own_flow_run()
    if own is None or own.deployment_id is None:
        return []
    fields = service.model_dump(by_alias=True)
    async with get_client() as client:
        deployment, flow_run = await asyncio.gather(
            client.read_deployment(own.deployment_id), client.read_flow_run(own.id)
        )
        deployed = dict((deployment.parameters or {}).get("service") or {})
        problems = fixed_fields(deployment.name, deployment.work_pool_name, fields) + relative_paths(fields)
        if not in_pods:
            problems += _of_the_job(flow_run, deployment.job_variables or {}, deployed, fields)
        problems += await log_output_kept(client, deployment.id, deployment.tags, fields)
        if service.runtime_log_output:
            if KEPT_TAG not in deployment.tags:
                await client.update_deployment(deployment.id, DeploymentUpdate(tags=[*deployment.tags, KEPT_TAG]))
            if KEPT_TAG not in flow_run.tags:
                await client.update_flow_run(flow_run.id, tags=[*flow_run.tags, KEPT_TAG])
    return problems


def _of_the_job(
    flow_run: FlowRun, deployed_job: Mapping[str, Any], deployed: Mapping[str, Any], fields: Mapping[str, Any]
) -> list[Problem]:
    """Problems of fields that were changed for a run whose container was made for other values."""
    if not deployed_job or flow_run.job_variables:  # plain processes, or a run that `thresher start` has made room for
        return []
    return [
        Problem(
            name,
            fields.get(name),
            f"is {deployed.get(name)} for this service, and the run's container was made for that: start it with "
            f"`thresher start {deployed.get('name')} --set {name}=...`",
        )
        for name in _OF_THE_JOB
        if fields.get(name) != deployed.get(name)
    ]
