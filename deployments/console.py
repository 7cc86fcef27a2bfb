"""The console flow on a Prefect server: a form whose choices are the server's own pools and flavors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from prefect.client.orchestration import PrefectClient
from prefect.utilities.callables import parameter_schema

from deployments.deploy_service import deploy_service
from tasks.domain.pool import Pool

PREFECT_FILE = Path(__file__).with_name("prefect.yaml")


async def register_console(client: PrefectClient, pools: Mapping[str, Pool]) -> None:
    """Register the console's flow as ``prefect.yaml`` describes it, with these pools to choose from."""
    (described,) = yaml.safe_load(PREFECT_FILE.read_bytes())["deployments"]
    flow_id = await client.create_flow(deploy_service)
    work_pool = described["work_pool"]
    name = work_pool["name"] if work_pool["name"] in pools else next(iter(_local(pools)), None)
    if name is None:
        return  # no worker of these pools could run the console
    await client.create_deployment(
        flow_id=flow_id,
        name=described["name"],
        description=described["description"],
        entrypoint=described["entrypoint"],
        pull_steps=[],
        work_pool_name=name,
        work_queue_name=work_pool["work_queue_name"],
        parameter_openapi_schema=form(parameter_schema(deploy_service).model_dump_for_openapi(), pools),
        enforce_parameter_schema=described["enforce_parameter_schema"],
        tags=described["tags"],
    )


def _local(pools: Mapping[str, Pool]) -> list[str]:
    return [name for name, pool in pools.items() if pool.kind == "process"]


def form(schema: dict[str, Any], pools: Mapping[str, Pool]) -> dict[str, Any]:
    """The flow's parameter schema with a choice of pools, and the flavors of each in the help of that field."""
    properties = schema["definitions"]["BatchService"]["properties"]
    properties["resource_pool"] |= {"enum": list(pools)}
    offered = "; ".join(f"{name}: {', '.join(one.name for one in pool.flavors)}" for name, pool in pools.items())
    properties["flavor"]["description"] += f". {offered}"
    return schema
