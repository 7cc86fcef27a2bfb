"""Resource pools as Prefect work pools: the job template of their runs, and the job variables of a flavor."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from tasks.clients.cluster.pod_security import (
    CLUSTER_LABEL,
    DISK_LIMIT,
    DISK_REQUEST,
    PART_LABEL,
    closed_container,
    closed_pod,
    own_mounts,
    own_volumes,
)
from tasks.domain.pool import Flavor, Pool
from tasks.prefect_side.api import POOL_KEY
from tasks.prefect_side.environment import FLOW_ENVIRONMENT
from tasks.prefect_side.internals import shipped_workers

FLOW_CPU = 0.5
FLOW_MEMORY_MIB = 512
"""Room for the flow's own process, next to its instances: it reads, sends and writes (measured: about 300 MiB)."""

APART_CPU = 1.0
APART_MEMORY_MIB = 1024
"""Room for it when all its instances are elsewhere, on a Dask cluster: it plans, distributes and publishes."""
PROCESSES = 4096
"""Limit of processes in a run's container, threads included."""
_OF_THE_CLIENT = frozenset(
    {
        *("name", "env", "mem_limit", "nano_cpus", "device_requests"),
        *("cpu_request", "cpu_limit", "memory_request", "memory_limit", "accelerators"),
    }
)
"""Job variables that a deployment or run may set. All others are the administrator's: with commands, images, accounts
and networks, any user allowed to start a run could run any program under any account."""
_COLLECTIONS = {"process": "prefect", "docker": "prefect-docker", "kubernetes": "prefect-kubernetes"}


def base_job_template(pool: Pool) -> dict[str, Any]:
    """The base job template of a pool's work pool: Prefect's own for this kind, with the pool's defaults.

    It also holds the pool itself, under ``POOL_KEY``. The resources of a run's job come from :func:`job_variables`.
    """
    template = _default_template(pool.kind, pool.environment)
    if pool.kind == "docker":
        _adapt_docker(pool, template)
    elif pool.kind == "kubernetes":
        _adapt_kubernetes(pool, template)
    _close(template)
    template[POOL_KEY] = pool.model_dump(mode="json")
    return template


def console_job_template() -> dict[str, Any]:
    """The base job template of the console's work pool: without ``POOL_KEY``, as this is not a resource pool."""
    template = _default_template("process", {})
    _close(template)
    return template


def _default_template(kind: str, environment: Mapping[str, str]) -> dict[str, Any]:
    worker = shipped_workers()[_COLLECTIONS[kind]][kind]
    template: dict[str, Any] = copy.deepcopy(worker["default_base_job_configuration"])
    # A deployment's own env would replace this one entirely, so deployments have none.
    template["variables"]["properties"]["env"]["default"] = {**FLOW_ENVIRONMENT, **environment}
    return template


def _close(template: dict[str, Any]) -> None:
    """Insert the values of all variables that are not the client's, and accept only the client's from then on."""
    variables = template["variables"]
    known = variables["properties"]
    fixed = {"{{ " + name + " }}": found.get("default") for name, found in known.items() if name not in _OF_THE_CLIENT}
    template["job_configuration"] = _fixed(template["job_configuration"], fixed)
    variables["properties"] = {name: found for name, found in known.items() if name in _OF_THE_CLIENT}
    # Another env could name a library or a folder of code. Prefect's server checks it against this schema.
    variables["properties"]["env"]["enum"] = [known["env"]["default"]]
    variables["additionalProperties"] = False


def _fixed(node: Any, values: Mapping[str, Any]) -> Any:
    """A copy of the node with variables replaced by their values; fields without a value are left out."""
    if isinstance(node, dict):
        found = {key: _fixed(value, values) for key, value in node.items()}
        return {key: value for key, value in found.items() if value is not None}
    if isinstance(node, list):
        return [_fixed(one, values) for one in node]
    return values.get(node, node) if isinstance(node, str) else node


def _adapt_docker(pool: Pool, template: dict[str, Any]) -> None:
    variables = template["variables"]["properties"]
    variables["image"]["default"] = pool.image
    variables["image_pull_policy"]["default"] = "IfNotPresent"
    variables["auto_remove"]["default"] = True
    engine = pool.engine
    networks = dict.fromkeys(name for name in (pool.network, engine and engine.network) if name)
    variables["networks"]["default"] = list(networks)
    socket = [f"{engine.socket}:{engine.socket}"] if engine and engine.socket else []
    variables["volumes"]["default"] = [*pool.volumes, *socket]
    variables["nano_cpus"] = {"title": "CPU", "description": "Billionths of a core", "type": "integer"}
    variables["device_requests"] = {"title": "Devices", "description": "GPUs", "type": "array", "default": []}
    template["job_configuration"]["container_create_kwargs"] = {
        "nano_cpus": "{{ nano_cpus }}",
        "device_requests": "{{ device_requests }}",
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "read_only": True,  # except for volumes; the image has its own: /data and /tmp
        "pids_limit": PROCESSES,
        **({"group_add": [str(engine.group)]} if engine and engine.group else {}),
    }


def _adapt_kubernetes(pool: Pool, template: dict[str, Any]) -> None:
    variables = template["variables"]["properties"]
    variables["image"]["default"] = pool.image
    variables["image_pull_policy"]["default"] = "IfNotPresent"
    variables["namespace"]["default"] = pool.namespace or "default"
    if pool.service_account:
        variables["service_account_name"]["default"] = pool.service_account
    made = template["job_configuration"]["job_manifest"]["spec"]["template"]
    (container,) = made["spec"]["containers"]
    # Only runs that create pods get a token; no model is in their own pod.
    made["metadata"] = {"labels": {PART_LABEL: "run", **({CLUSTER_LABEL: "allowed"} if pool.makes_pods else {})}}
    made["spec"] |= closed_pod(token=pool.makes_pods) | {"volumes": own_volumes()}
    container |= {"securityContext": closed_container(), "volumeMounts": own_mounts()}
    container["resources"]["requests"]["ephemeral-storage"] = DISK_REQUEST
    container["resources"]["limits"]["ephemeral-storage"] = DISK_LIMIT
    resource = pool.resource_of_accelerators
    if any(flavor.accelerators for flavor in pool.flavors):
        variables["accelerators"] = {"title": "Accelerators", "description": f"Number of {resource}", "type": "string"}
        for bound in ("limits", "requests"):
            container["resources"][bound][resource] = "{{ accelerators }}"


def job_variables(pool: Pool, flavor: Flavor, instances: int) -> dict[str, Any]:
    """The job variables of a service: resources for the flow's own process, and for its instances if they are in it.

    Empty for pools of plain processes, where each model server has its own limits.
    """
    if pool.makes_pods or (pool.cluster.kind == "scheduler" and instances > 1):
        cpu, memory, accelerators = APART_CPU, APART_MEMORY_MIB, 0
    elif pool.engine:
        workers = instances if instances > 1 else 0
        cpu, memory, accelerators = APART_CPU, APART_MEMORY_MIB + FLOW_MEMORY_MIB * workers, 0
    else:
        cpu = FLOW_CPU + flavor.cpu * instances
        memory = FLOW_MEMORY_MIB + round(flavor.memory_gb * 1024) * instances
        accelerators = flavor.accelerators * instances
    if pool.kind == "docker":
        devices = [{"Count": accelerators, "Capabilities": [["gpu"]]}] if accelerators else []
        return {"mem_limit": f"{memory}m", "nano_cpus": round(cpu * 1e9), "device_requests": devices}
    if pool.kind == "kubernetes":
        cores, room = f"{round(cpu * 1000)}m", f"{memory}Mi"
        found = {"cpu_request": cores, "cpu_limit": cores, "memory_request": room, "memory_limit": room}
        # Left out at 0, so that the template drops the resource.
        return found | ({"accelerators": str(accelerators)} if accelerators else {})
    return {}
