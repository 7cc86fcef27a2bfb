"""The console on a Prefect server: the form that deploys a service."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import yaml
from prefect.client.orchestration import PrefectClient

from deployments.deploy_service import deploy_service
from deployments.form import form
from tasks.domain.pool import Pool

PREFECT_FILE = Path(__file__).with_name("prefect.yaml")


async def register_console(client: PrefectClient, pools: Mapping[str, Pool]) -> None:
    """Register the console's flow as ``prefect.yaml`` describes it, with these pools to choose from.

    It runs on the pool that is named there, else on the first one of plain processes; without any it is left out.
    """
    (described,) = yaml.safe_load(PREFECT_FILE.read_bytes())["deployments"]
    work_pool = described["work_pool"]
    fitting = [name for name, pool in pools.items() if pool.kind == "process"]
    if work_pool["name"] in fitting:
        fitting = [work_pool["name"]]
    if not fitting:
        return
    await client.create_deployment(
        flow_id=await client.create_flow(deploy_service),
        name=described["name"],
        description=described["description"],
        entrypoint=described["entrypoint"],
        pull_steps=[],
        work_pool_name=fitting[0],
        work_queue_name=work_pool["work_queue_name"],
        parameter_openapi_schema=form(deploy_service, pools),
        enforce_parameter_schema=described["enforce_parameter_schema"],
        tags=described["tags"],
    )
