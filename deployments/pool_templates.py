"""Resource pools as Prefect work pools: the template of the job that a run is, and what a flavor means in it."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import prefect

from tasks.domain.pool import Flavor, Pool
from tasks.server_pools import POOL_KEY

FLOW_CPU = 0.5
FLOW_MEMORY_MIB = 512
"""What the flow's own process takes beside its instances: it reads, sends and writes (measured: about 300 MiB)."""

APART_CPU = 1.0
APART_MEMORY_MIB = 1024
"""What it takes when all its instances are elsewhere, on a Dask cluster: it plans, shares out and publishes."""
FLOW_ENVIRONMENT = {
    # Runs that are not heard of for a while are Crashed: see zombies.
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
}
_WORKERS = Path(prefect.__file__).parent / "server/api/collections_data/views/aggregate-worker-metadata.json"
_COLLECTIONS = {"process": "prefect", "docker": "prefect-docker", "kubernetes": "prefect-kubernetes"}


@cache
def _shipped() -> dict[str, Any]:
    """What Prefect itself knows of the kinds of workers, so that nothing need be installed for those used elsewhere."""
    found: dict[str, Any] = json.loads(_WORKERS.read_bytes())
    return found


def base_job_template(pool: Pool) -> dict[str, Any]:
    """The base job template of a pool's work pool: Prefect's own for this kind, with the pool's defaults.

    The pool itself stands in it under ``POOL_KEY``. What a run's job may use is left to :func:`job_variables`.
    """
    template = _default_template(pool.kind, pool.environment)
    if pool.kind == "docker":
        _adapt_docker(pool, template)
    elif pool.kind == "kubernetes":
        _adapt_kubernetes(pool, template)
    template[POOL_KEY] = pool.model_dump(mode="json")
    return template


def console_job_template() -> dict[str, Any]:
    """The base job template of the console's work pool: without ``POOL_KEY``, so that it is no resource pool."""
    return _default_template("process", {})


def _default_template(kind: str, environment: Mapping[str, str]) -> dict[str, Any]:
    worker = _shipped()[_COLLECTIONS[kind]][kind]
    template: dict[str, Any] = copy.deepcopy(worker["default_base_job_configuration"])
    # A deployment's own env would take the place of this one whole, so deployments are given none.
    template["variables"]["properties"]["env"]["default"] = {**FLOW_ENVIRONMENT, **environment}
    return template


def _adapt_docker(pool: Pool, template: dict[str, Any]) -> None:
    variables = template["variables"]["properties"]
    variables["image"]["default"] = pool.image
    variables["image_pull_policy"]["default"] = "IfNotPresent"
    variables["auto_remove"]["default"] = True
    variables["networks"]["default"] = [pool.network] if pool.network else []
    variables["volumes"]["default"] = list(pool.volumes)
    variables["nano_cpus"] = {"title": "CPU", "description": "Billionths of a core", "type": "integer"}
    variables["device_requests"] = {"title": "Devices", "description": "GPUs", "type": "array", "default": []}
    template["job_configuration"]["container_create_kwargs"] = {
        "nano_cpus": "{{ nano_cpus }}",
        "device_requests": "{{ device_requests }}",
    }


def _adapt_kubernetes(pool: Pool, template: dict[str, Any]) -> None:
    variables = template["variables"]["properties"]
    variables["image"]["default"] = pool.image
    variables["image_pull_policy"]["default"] = "IfNotPresent"
    variables["namespace"]["default"] = pool.namespace or "default"
    if pool.service_account:
        variables["service_account_name"]["default"] = pool.service_account
    resource = pool.resource_of_accelerators
    if any(flavor.accelerators for flavor in pool.flavors):
        variables["accelerators"] = {
            "title": "Accelerators",
            "description": f"Number of {resource}",
            "type": "string",
        }
        (container,) = template["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]["containers"]
        for bound in ("limits", "requests"):
            container["resources"][bound][resource] = "{{ accelerators }}"


def job_variables(pool: Pool, flavor: Flavor, instances: int) -> dict[str, Any]:
    """What the job of a service overrides: room for the flow's own process, and for its instances if they are in it.

    Nothing on pools of plain processes: there each model server is limited by itself.
    """
    if pool.makes_pods or (pool.cluster.kind == "scheduler" and instances > 1):
        cpu, memory, accelerators = APART_CPU, APART_MEMORY_MIB, 0
    else:
        cpu = FLOW_CPU + flavor.cpu * instances
        memory = FLOW_MEMORY_MIB + round(flavor.memory_gb * 1024) * instances
        accelerators = flavor.accelerators * instances
    if pool.kind == "docker":
        devices = [{"Count": accelerators, "Capabilities": [["gpu"]]}] if accelerators else []
        return {"mem_limit": f"{memory}m", "nano_cpus": round(cpu * 1e9), "device_requests": devices}
    if pool.kind == "kubernetes":
        found = {
            "cpu_request": f"{round(cpu * 1000)}m",
            "cpu_limit": f"{round(cpu * 1000)}m",
            "memory_request": f"{memory}Mi",
            "memory_limit": f"{memory}Mi",
        }
        # Left out at 0, the template drops the resource altogether.
        return found | ({"accelerators": str(accelerators)} if accelerators else {})
    return {}
