"""The console on a Prefect server: the form that deploys a service."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import yaml
from prefect.client.orchestration import PrefectClient

from deployments.set_up.deploy_service import deploy_service
from deployments.templates.form import form
from deployments.templates.pool_templates import console_job_template
from deployments.templates.work_pools import put_work_pool
from tasks.domain.pool import Pool

PREFECT_FILE = Path(__file__).parents[1] / "prefect.yaml"
CONSOLE_POOL = "console"
"""The work pool that runs the form. It is separate, so that the form never waits for runs of services."""


async def register_console(client: PrefectClient, pools: Mapping[str, Pool]) -> None:
    """Register the console's flow as ``prefect.yaml`` describes it, with these pools to choose from.

    Also create its work pool. Raises SpecificationError if a work pool of that name is of another kind.
    """
    (described,) = yaml.safe_load(PREFECT_FILE.read_bytes())["deployments"]
    detail = "Where the form that deploys services runs; no resource pool"
    await put_work_pool(client, CONSOLE_POOL, "process", detail, console_job_template(), None)
    await client.create_deployment(
        flow_id=await client.create_flow(deploy_service),
        pull_steps=[],
        work_pool_name=CONSOLE_POOL,
        work_queue_name=described["work_pool"]["work_queue_name"],
        parameter_openapi_schema=form(deploy_service, pools),
        **{one: described[one] for one in ("name", "description", "entrypoint", "enforce_parameter_schema", "tags")},
    )
