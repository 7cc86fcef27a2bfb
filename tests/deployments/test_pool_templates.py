"""Each pool's template, rendered by the worker's own job configuration class for each of its flavors."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from docker.types import HostConfig
from fakes.pod_security import open_parts
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate as AskedFor
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import PrefectHTTPStatusError
from prefect.server.schemas.actions import WorkPoolCreate
from prefect.workers.base import BaseJobConfiguration
from prefect.workers.process import ProcessJobConfiguration
from prefect_docker.worker import DockerWorkerJobConfiguration
from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration

from deployments.templates.pool_templates import (
    APART_CPU,
    APART_MEMORY_MIB,
    FLOW_MEMORY_MIB,
    PROCESSES,
    base_job_template,
    console_job_template,
    job_variables,
)
from tasks.clients.cluster.pod_security import CLUSTER_LABEL, DISK_LIMIT, DISK_REQUEST, PART_LABEL
from tasks.clients.pool_files import read_pools
from tasks.domain.pool import Flavor, Pool
from tasks.prefect_side.api import pool_of
from tasks.prefect_side.environment import FLOW_ENVIRONMENT

FOLDER = Path(__file__).parents[2] / "infra" / "pools"
pytestmark = [pytest.mark.prefect, pytest.mark.usefixtures("prefect_server")]  # references to blocks are looked up

CLASSES: dict[str, type[BaseJobConfiguration]] = {
    "process": ProcessJobConfiguration,
    "docker": DockerWorkerJobConfiguration,
    "kubernetes": KubernetesWorkerJobConfiguration,
}


def pools() -> list[Pool]:
    examples = re.findall(r"^```yaml\n(.*?)^```", (FOLDER / "README.md").read_text(), flags=re.DOTALL | re.MULTILINE)
    example = next(one for one in examples if "kind: docker" in one)
    return [*read_pools(FOLDER).values(), Pool.model_validate(yaml.safe_load(example))]


CASES = [
    pytest.param(pool, flavor, instances, id=f"{pool.name}-{flavor.name}-{instances}")
    for pool in pools()
    for flavor in pool.flavors
    for instances in (1, 3)
]


def rendered(pool: Pool, flavor: Flavor, instances: int) -> Any:
    template = base_job_template(pool)
    values = job_variables(pool, flavor, instances)
    return asyncio.run(CLASSES[pool.kind].from_template_and_values(template, values))


def with_disk(expected: dict[str, str]) -> dict[str, dict[str, str]]:
    disk = "ephemeral-storage"
    return {"requests": {**expected, disk: DISK_REQUEST}, "limits": {**expected, disk: DISK_LIMIT}}


def test_pools__of_the_project_are_of_every_kind() -> None:
    assert {pool.kind for pool in pools()} == set(CLASSES)


@pytest.mark.parametrize("pool", pools(), ids=lambda pool: pool.name)
def test_template__is_one_that_the_server_takes_and_the_pool_can_be_read_back(pool: Pool) -> None:
    created = WorkPoolCreate(name=pool.name, type=pool.kind, base_job_template=base_job_template(pool))
    assert pool_of(created.base_job_template) == pool


def test_template__of_the_console_is_no_resource_pool_and_lets_its_runs_be_heard() -> None:
    template = WorkPoolCreate(
        name="console", type="process", base_job_template=console_job_template()
    ).base_job_template
    assert pool_of(template) is None
    job = asyncio.run(ProcessJobConfiguration.from_template_and_values(template, {}))
    assert FLOW_ENVIRONMENT.items() <= job.env.items()


@pytest.mark.parametrize(("pool", "flavor", "instances"), CASES)
def test_template__gives_the_flow_its_environment_whatever_the_flavor(
    pool: Pool, flavor: Flavor, instances: int
) -> None:
    job = rendered(pool, flavor, instances)
    assert {**FLOW_ENVIRONMENT, **pool.environment}.items() <= job.env.items()


@pytest.mark.parametrize(("pool", "flavor", "instances"), CASES)
def test_flavor__ends_up_in_the_job(pool: Pool, flavor: Flavor, instances: int) -> None:
    job = rendered(pool, flavor, instances)
    memory_mib = int(flavor.memory_gb * 1024) * instances + FLOW_MEMORY_MIB
    if pool.kind == "process":
        assert job_variables(pool, flavor, instances) == {}
    elif pool.kind == "docker":
        assert job.image == pool.image
        assert job.mem_limit == f"{memory_mib}m"
        assert job.container_create_kwargs["nano_cpus"] == (flavor.cpu * instances + 0.5) * 1e9
        devices = job.container_create_kwargs["device_requests"]
        count = flavor.accelerators * instances
        assert devices == ([{"Count": count, "Capabilities": [["gpu"]]}] if count else [])
        assert (job.networks, job.volumes) == ([pool.network], list(pool.volumes))
        # As its worker asks Docker for it.
        closed = job.container_create_kwargs
        assert (closed["cap_drop"], closed["security_opt"]) == (["ALL"], ["no-new-privileges:true"])
        assert closed["read_only"] is True and closed["pids_limit"] == PROCESSES and not job.privileged
        assert not set(closed) & set(type(job).model_fields), "its worker passes over these"
    else:
        spec = job.job_manifest["spec"]["template"]["spec"]
        resources = spec["containers"][0]["resources"]
        assert spec["containers"][0]["image"] == pool.image
        expected = {"cpu": f"{int((flavor.cpu * instances + 0.5) * 1000)}m", "memory": f"{memory_mib}Mi"}
        if flavor.accelerators:
            expected["nvidia.com/gpu"] = str(flavor.accelerators * instances)
        assert resources == with_disk(expected)
        assert job.namespace == pool.namespace


@pytest.mark.parametrize("kind", ["docker", "kubernetes"])
@pytest.mark.parametrize("cluster", [{"kind": "scheduler", "address": "tls://dask:8786"}, {"kind": "kubernetes"}])
def test_flavor__of_instances_that_are_elsewhere_is_not_in_the_job(kind: str, cluster: dict[str, str]) -> None:
    (pool,) = [pool for pool in pools() if pool.kind == kind]
    if cluster["kind"] == "kubernetes":
        if kind == "docker":
            return  # there is no such pool: see tests/domain/test_pool.py
        pool = pool.model_copy(update={"service_account": "thresher-run"})
    fields = pool.model_dump() | {"cluster": cluster}
    apart = Pool.model_validate(fields)
    flavor = next(flavor for flavor in apart.flavors if flavor.accelerators)
    job = rendered(apart, flavor, 7)
    if kind == "docker":
        assert (job.mem_limit, job.container_create_kwargs["nano_cpus"]) == (f"{APART_MEMORY_MIB}m", APART_CPU * 1e9)
        assert job.container_create_kwargs["device_requests"] == []
    else:
        spec = job.job_manifest["spec"]["template"]["spec"]
        expected = {"cpu": f"{int(APART_CPU * 1000)}m", "memory": f"{APART_MEMORY_MIB}Mi"}
        assert spec["containers"][0]["resources"] == with_disk(expected)
        assert spec.get("serviceAccountName") == apart.service_account
    # The only instance is in the run's own process, unless instances are pods.
    alone = job_variables(apart, flavor, 1)
    assert (alone == job_variables(apart, flavor, 7)) == apart.makes_pods


@pytest.mark.parametrize(("pool", "flavor", "instances"), [case for case in CASES if "dedicated" in str(case.id)])
def test_template__is_a_job_that_kubernetes_takes(pool: Pool, flavor: Flavor, instances: int) -> None:
    job = rendered(pool, flavor, instances)
    manifest = job.job_manifest
    container = manifest["spec"]["template"]["spec"]["containers"][0]
    # As its worker does it right before the job is created.
    container["env"] = [{"name": name, "value": value} for name, value in job.env.items()]
    container["args"] = ["prefect", "flow-run", "execute"]
    for misplaced in ("parallelism", "completions"):  # Prefect's own template has them one level too deep
        manifest["spec"]["template"]["spec"].pop(misplaced)
    kubernetes_validate.validate(manifest, "1.30", strict=True)
    container["resources"]["limits"]["cpu"] = ["no quantity"]
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, "1.30", strict=True)


@pytest.mark.parametrize(
    ("address", "group"), [("unix:///var/run/docker.sock", 999), ("tcp://docker-proxy:2375", None)]
)
def test_template__of_a_pool_with_an_engine_reaches_it_and_has_no_room_for_models(
    address: str, group: int | None
) -> None:
    (docker,) = [pool for pool in pools() if pool.kind == "docker"]
    engine = {"address": address, "network": "models", "group": group}
    pool = Pool.model_validate(docker.model_dump() | {"engine": engine})
    job = rendered(pool, pool.flavors[-1], 1)
    assert job.networks == [docker.network, "models"]
    sockets = [f"{address.removeprefix('unix://')}:{address.removeprefix('unix://')}"] if group else []
    assert job.volumes == [*docker.volumes, *sockets]
    asked = job.container_create_kwargs
    assert asked.get("group_add") == ([str(group)] if group else None)
    assert (job.mem_limit, asked["nano_cpus"], asked["device_requests"]) == (
        f"{APART_MEMORY_MIB}m",
        APART_CPU * 1e9,
        [],
    )
    # As Docker's client takes it.
    options = {name: value for name, value in asked.items() if name not in ("nano_cpus", "device_requests")}
    assert HostConfig(version="1.45", **options)["CapDrop"] == ["ALL"]
    several = rendered(pool, pool.flavors[-1], 3)
    assert several.mem_limit == f"{APART_MEMORY_MIB + 3 * FLOW_MEMORY_MIB}m"


def on_kubernetes(**changed: Any) -> Pool:
    (pool,) = [pool for pool in pools() if pool.kind == "kubernetes"]
    return Pool.model_validate(pool.model_dump() | changed)


WITH_PODS = {"service_account": "thresher-run", "cluster": {"kind": "kubernetes"}}
SCHEDULER = {"service_account": "thresher-run", "cluster": {"kind": "scheduler", "address": "tls://dask:8786"}}


@pytest.mark.parametrize(
    ("changed", "token"), [({}, False), ({"service_account": "own"}, False), (SCHEDULER, False), (WITH_PODS, True)]
)
def test_template__is_closed_and_has_a_token_only_where_no_model_is(changed: dict[str, Any], token: bool) -> None:
    pool = on_kubernetes(**changed)
    spec = rendered(pool, pool.flavors[0], 1).job_manifest["spec"]["template"]["spec"]
    assert open_parts(spec, token=token) == []
    assert spec["automountServiceAccountToken"] is token
    assert len(spec["containers"]) == 1 and "initContainers" not in spec


@pytest.mark.parametrize("changed", [{}, WITH_PODS])
def test_template__says_what_the_pod_is_whatever_labels_a_run_asks_for(changed: dict[str, Any]) -> None:
    pool = on_kubernetes(**changed)
    asked = {"labels": {PART_LABEL: "server", CLUSTER_LABEL: "allowed", "app": "postgres"}}
    job = asyncio.run(KubernetesWorkerJobConfiguration.from_template_and_values(base_job_template(pool), asked))
    flow_run = FlowRun(id=uuid.uuid4(), flow_id=uuid.uuid4(), name="a run")
    job.prepare_for_flow_run(flow_run)
    labels = job.job_manifest["spec"]["template"]["metadata"]["labels"]
    assert labels[PART_LABEL] == "run" and labels.get(CLUSTER_LABEL) == ("allowed" if pool.makes_pods else None)
    assert "app" not in labels and labels["prefect.io/flow-run-id"] == str(flow_run.id)
    assert job.job_manifest["spec"]["template"]["spec"]["containers"][0]["args"][:2] == ["prefect", "flow-run"]


HOSTILE: dict[str, Any] = {
    "command": "sh -c id", "image": "evil:1", "labels": {"a": "b"}, "namespace": "kube-system",
    "service_account_name": "admin", "cluster_config": {"config": {}, "context_name": "it"}, "privileged": True,
    "network_mode": "host", "networks": ["other"], "volumes": ["/:/host"], "working_dir": "/tmp",
    "registry_credentials": {"username": "a", "password": "b", "registry_url": "c"}, "image_pull_policy": "Always",
    "env": {"PYTHONPATH": "/tmp"}, "env.LD_PRELOAD": "/tmp/x.so", "stream_output": False, "auto_remove": False,
}  # fmt: skip


@pytest.mark.parametrize("pool", pools(), ids=lambda pool: pool.name)
def test_template__lets_a_run_change_nothing_but_its_name_and_its_flavor(pool: Pool) -> None:
    asked = {name: value for name, value in HOSTILE.items() if not name.startswith("env")}
    template = base_job_template(pool)
    kind = CLASSES[pool.kind]
    plain, hostile = (
        asyncio.run(kind.from_template_and_values(template, values)).model_dump(mode="json")
        for values in (job_variables(pool, pool.flavors[0], 1), job_variables(pool, pool.flavors[0], 1) | asked)
    )
    assert hostile == plain and "evil" not in json.dumps(plain)


@pytest.mark.parametrize("kind", sorted(CLASSES))
def test_server__refuses_job_variables_that_are_the_administrators(kind: str) -> None:
    pool = next(pool for pool in pools() if pool.kind == kind)
    few, more = (job_variables(pool, pool.flavors[0], instances) for instances in (1, 3))
    where = f"closed-{kind}"

    async def ask() -> list[str]:
        async with get_client() as client:
            template = base_job_template(pool)
            await client.create_work_pool(AskedFor(name=where, type=kind, base_job_template=template), overwrite=True)
            flow = await client.create_flow_from_name("closed")
            made = await client.create_deployment(flow, "closed", work_pool_name=where, job_variables=few)
            await client.create_flow_run_from_deployment(made, job_variables=more)
            taken = list(HOSTILE)
            for name, value in HOSTILE.items():
                with pytest.raises(PrefectHTTPStatusError, match=r"40[09]|422"):
                    await client.create_flow_run_from_deployment(made, job_variables={name: value})
                with pytest.raises(PrefectHTTPStatusError, match=r"40[09]|422"):
                    await client.create_deployment(flow, "other", work_pool_name=where, job_variables={name: value})
                taken.remove(name)
            return taken

    assert asyncio.run(ask()) == []
