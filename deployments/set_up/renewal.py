"""Services follow their pool: applying its file renews what their deployment took from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.client.schemas.responses import DeploymentResponse

from deployments.services.service import specification_of
from deployments.templates.form import form
from deployments.templates.pool_templates import job_variables
from flows.batch_service import batch_service
from tasks.domain.pool import Pool
from tasks.prefect_side.api import services


async def renew_services(client: PrefectClient, pools: Mapping[str, Pool]) -> None:
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
