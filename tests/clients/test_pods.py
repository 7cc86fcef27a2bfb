"""What Kubernetes and Dask's operator are asked for: valid by their schemas, of the flavor's size, without secrets."""

from __future__ import annotations

import base64
import copy
import json
from dataclasses import replace
from typing import Any

import kubernetes_validate
import pytest
from dask_kubernetes.operator.kubecluster.kubecluster import make_cluster_spec
from dask_kubernetes.operator.validation import validate_cluster_name
from fakes import kubernetes
from fakes.pod_security import open_parts

from tasks.clients.cluster.dask_security import CERTIFICATE, KEY, made_identity
from tasks.clients.cluster.pod_security import DISK_LIMIT, DISK_REQUEST, PART_LABEL
from tasks.clients.cluster.pods import (
    SCHEDULER_MEMORY_MIB,
    WORKER_CPU,
    WORKER_MEMORY_MIB,
    PodGroup,
    cluster_manifest,
    secret_manifest,
    trouble_of,
)
from tasks.domain.pool import Flavor, Pool

FLAVOR = {"name": "gpu", "cpu": 2.5, "memory_gb": 4, "accelerators": 1}
POOL = Pool.model_validate(
    {
        "name": "pods", "kind": "kubernetes", "image": "thresher:0.1.0", "namespace": "ml",
        "service_account": "thresher-run", "cluster": {"kind": "kubernetes"},
        "environment": {"THRESHER_MODEL_STORE": "s3://models/$(HOME)", "PREFECT_LOGGING_LEVEL": "INFO"},
        "flavors": [FLAVOR],
    }
)  # fmt: skip
PLAIN = PodGroup(
    task_id="7A4e1c9e-1111-4222-8333-444455556666", attempt="0f0f0f0f", service="nightly_1", pool=POOL,
    flavor=POOL.flavors[0], count=3, threads=5, idle_seconds=1800,
    own={"PREFECT_API_AUTH_STRING": "admin:hidden-1", "PREFECT_LOGGING_LEVEL": "DEBUG"},
)  # fmt: skip
IMAGE = replace(
    PLAIN, model_image="registry.example.com/m:1", model_port=8080,
    given={"API_TOKEN": "hidden-2", "OMP_NUM_THREADS": "7", "PORT": "1"},
)  # fmt: skip


def worker_of(group: PodGroup) -> dict[str, Any]:
    spec: dict[str, Any] = cluster_manifest(group)["spec"]["worker"]["spec"]
    return spec


def with_disk(expected: dict[str, str]) -> dict[str, dict[str, str]]:
    disk = "ephemeral-storage"
    return {"requests": {**expected, disk: DISK_REQUEST}, "limits": {**expected, disk: DISK_LIMIT}}


def environment(container: dict[str, Any]) -> dict[str, Any]:
    found = {one["name"]: one.get("value", one.get("valueFrom")) for one in container["env"]}
    assert len(found) == len(container["env"]), "a variable stands there twice"
    return found


@pytest.mark.parametrize("group", [PLAIN, IMAGE], ids=["package", "image"])
def test_cluster__is_valid_for_the_operator_and_so_is_what_it_makes_of_it(group: PodGroup) -> None:
    made = cluster_manifest(group)
    validate_cluster_name(made["metadata"]["name"])
    assert kubernetes.problems(made) == ""
    for break_it in (
        lambda one: one["spec"]["worker"]["spec"].pop("containers"),
        lambda one: one["spec"]["worker"]["spec"]["containers"][0].update(resources={"limits": {"cpu": ["x"]}}),
        lambda one: one["spec"]["worker"]["spec"].update(automount=False),
        lambda one: one["spec"].pop("scheduler"),
    ):
        broken = copy.deepcopy(made)
        break_it(broken)
        try:
            assert kubernetes.problems(broken) != ""
        except KeyError:
            pass  # the operator itself stumbles over it


def test_cluster__is_what_dask_kubernetes_would_make_but_for_what_is_ours() -> None:
    made = cluster_manifest(PLAIN)
    theirs = make_cluster_spec(name=PLAIN.name, image=POOL.image, n_workers=3)
    assert made["spec"]["scheduler"]["service"] == theirs["spec"]["scheduler"]["service"]
    for part, container in (("worker", "worker"), ("scheduler", "scheduler")):
        ours, own = (one["spec"][part]["spec"]["containers"][0] for one in (made, theirs))
        assert (ours["name"], ours["image"], ours["ports"]) == (container, own["image"], own["ports"])
    assert made["spec"]["worker"]["replicas"] == 3
    assert made["spec"]["idleTimeout"] == 1800
    # The operator names each worker; the programs are Dask's own, with the run's certificate.
    arguments = made["spec"]["worker"]["spec"]["containers"][0]["args"]
    own = ["python", "-m", "tasks.clients.cluster.dask_process"]
    assert arguments[:4] == [*own, "dask_worker"] and "$(DASK_WORKER_NAME)" in arguments
    assert made["spec"]["scheduler"]["spec"]["containers"][0]["args"][:4] == [*own, "dask_scheduler"]


def test_identity__is_for_scheduler_and_workers_and_never_for_the_models_container() -> None:
    (scheduler,) = cluster_manifest(IMAGE)["spec"]["scheduler"]["spec"]["containers"]
    worker, model = worker_of(IMAGE)["containers"]
    for name in (CERTIFICATE, KEY):
        assert environment(scheduler)[name] == environment(worker)[name]
        assert environment(worker)[name]["secretKeyRef"]["key"] == f"worker.{name}"
        assert name not in json.dumps(model)
    kept = secret_manifest(IMAGE, "uid")["data"]
    assert b"PRIVATE KEY" in base64.b64decode(kept[f"worker.{KEY}"])
    assert IMAGE.identity.key not in json.dumps(cluster_manifest(IMAGE)) and "PRIVATE" not in repr(IMAGE)
    assert IMAGE.identity.key != replace(IMAGE, identity=made_identity()).identity.key


def test_flavor__is_the_worker_containers_own_with_room_for_its_process() -> None:
    (container,) = worker_of(PLAIN)["containers"]
    expected = {
        "cpu": f"{int((2.5 + WORKER_CPU) * 1000)}m", "memory": f"{4096 + WORKER_MEMORY_MIB}Mi", "nvidia.com/gpu": "1",
    }  # fmt: skip
    assert container["resources"] == with_disk(expected)


def test_flavor__is_the_model_images_and_the_worker_gets_a_small_fixed_amount() -> None:
    npu = replace(IMAGE, pool=POOL.model_copy(update={"accelerator_resource": "huawei.com/Ascend910"}))
    worker, model = worker_of(npu)["containers"]
    expected = {"cpu": "2500m", "memory": "4096Mi", "huawei.com/Ascend910": "1"}
    assert model["resources"] == with_disk(expected)
    fixed = {"cpu": f"{int(WORKER_CPU * 1000)}m", "memory": f"{WORKER_MEMORY_MIB}Mi"}
    assert worker["resources"] == with_disk(fixed)
    assert (model["image"], model["ports"][0]["containerPort"]) == ("registry.example.com/m:1", 8080)
    assert "command" not in model and "args" not in model  # how it is started is the image's own affair


def test_flavor__without_accelerators_asks_for_none_and_the_scheduler_never_does() -> None:
    flavor = Flavor(name="cpu", cpu=1, memory_gb=0.5)
    (container,) = worker_of(replace(PLAIN, flavor=flavor))["containers"]
    assert set(container["resources"]["limits"]) == {"cpu", "memory", "ephemeral-storage"}
    (scheduler,) = cluster_manifest(PLAIN)["spec"]["scheduler"]["spec"]["containers"]
    assert (
        scheduler["resources"]["limits"] == with_disk({"cpu": "500m", "memory": f"{SCHEDULER_MEMORY_MIB}Mi"})["limits"]
    )


def test_secrets__stand_in_the_secret_only_which_goes_with_the_cluster() -> None:
    made = cluster_manifest(IMAGE)
    assert "hidden" not in json.dumps(made) and "hidden" not in repr(IMAGE)
    secret = secret_manifest(IMAGE, "uid-1")
    kubernetes_validate.validate(secret, kubernetes_validate.latest_version(), strict=True)
    assert base64.b64decode(secret["data"]["model.API_TOKEN"]) == b"hidden-2"
    assert base64.b64decode(secret["data"]["worker.PREFECT_API_AUTH_STRING"]) == b"admin:hidden-1"
    (owner,) = secret["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("DaskCluster", made["metadata"]["name"], "uid-1")
    assert (secret["metadata"]["name"], secret["metadata"]["namespace"]) == (IMAGE.name, "ml")


def test_secrets__that_containers_refer_to_are_there_and_each_container_gets_its_own() -> None:
    worker, model = worker_of(IMAGE)["containers"]
    keys = set(secret_manifest(IMAGE, "uid")["data"])
    for container, prefix in ((worker, "worker."), (model, "model.")):
        refs = [one["valueFrom"]["secretKeyRef"] for one in container["env"] if "valueFrom" in one]
        assert refs and {ref["name"] for ref in refs} == {IMAGE.name}
        assert {ref["key"] for ref in refs} <= keys
        assert all(ref["key"].startswith(prefix) for ref in refs)


def test_environment__is_the_pools_for_the_worker_and_the_services_for_the_model() -> None:
    worker, model = (environment(one) for one in worker_of(IMAGE)["containers"])
    # Kubernetes would replace what looks like a reference to another variable.
    assert worker["THRESHER_MODEL_STORE"] == "s3://models/$$(HOME)"
    assert worker["PREFECT_LOGGING_LEVEL"]["secretKeyRef"]["key"] == "worker.PREFECT_LOGGING_LEVEL"
    assert "API_TOKEN" not in worker
    assert model["PORT"] == "8080"
    assert model["OMP_NUM_THREADS"]["secretKeyRef"]["key"] == "model.OMP_NUM_THREADS"
    assert model["MKL_NUM_THREADS"] == "2"
    assert not {name for name in model if name.startswith(("PREFECT_", "THRESHER_"))}


def test_pods__have_the_pools_account_and_no_token() -> None:
    spec = cluster_manifest(IMAGE)["spec"]
    for pod in (spec["worker"]["spec"], spec["scheduler"]["spec"]):
        assert pod["serviceAccountName"] == "thresher-run"
        assert pod["automountServiceAccountToken"] is False
        assert all(one["securityContext"]["allowPrivilegeEscalation"] is False for one in pod["containers"])


@pytest.mark.parametrize("group", [PLAIN, IMAGE], ids=["package", "image"])
def test_pods__are_of_the_profile_restricted_with_read_only_roots(group: PodGroup) -> None:
    for deployment in kubernetes.deployments(cluster_manifest(group)):
        template = deployment["spec"]["template"]
        assert open_parts(template["spec"]) == []
        # By which the NetworkPolicies of infra/kubernetes know them.
        assert template["metadata"]["labels"][PART_LABEL] == "instance"


def test_model__shares_no_volume_no_process_and_no_token_with_its_worker() -> None:
    pod = worker_of(IMAGE)
    worker, model = pod["containers"]
    assert not {one["name"] for one in worker["volumeMounts"]} & {one["name"] for one in model["volumeMounts"]}
    assert {one["name"] for one in pod["volumes"]} == {
        one["name"] for container in pod["containers"] for one in container["volumeMounts"]
    }
    assert all(set(one) == {"name", "emptyDir"} for one in pod["volumes"])
    assert pod["shareProcessNamespace"] is False and pod["automountServiceAccountToken"] is False
    assert "envFrom" not in model and "lifecycle" not in model


def test_model__writes_into_its_root_only_if_the_pool_says_so() -> None:
    open_pool = Pool.model_validate(POOL.model_dump() | {"model_root": "writable"})
    pod = worker_of(replace(IMAGE, pool=open_pool))
    roots = {one["name"]: one["securityContext"]["readOnlyRootFilesystem"] for one in pod["containers"]}
    assert roots == {"worker": True, "model": False}
    assert open_parts(pod, writable=frozenset({"model"})) == []
    assert open_parts(pod) == ["model: the root file system is not read-only"]


def waits(reason: str, **more: Any) -> dict[str, Any]:
    state = {"name": "model", "image": "m:1", "state": {"waiting": {"reason": reason}}, **more}
    return {"status": {"phase": "Pending", "containerStatuses": [state]}}


@pytest.mark.parametrize(
    ("pods", "said"),
    [
        ([], ""),
        ([{"metadata": {}}], ""),
        ([waits("ContainerCreating"), waits("PodInitializing")], ""),
        ([waits("ImagePullBackOff")] * 2, "container model of m:1: ImagePullBackOff (2 pods)"),
        (
            [waits("CrashLoopBackOff", lastState={"terminated": {"exitCode": 137, "reason": "OOMKilled"}})],
            "container model: CrashLoopBackOff; it ended with status 137 (OOMKilled)",
        ),
        (
            [
                {
                    "status": {
                        "conditions": [
                            {"type": "PodScheduled", "status": "False", "message": "0/3 nodes: 3 Insufficient cpu."}
                        ]
                    }
                }
            ],
            "a pod cannot be placed: 0/3 nodes: 3 Insufficient cpu.",
        ),
    ],
)
def test_trouble__says_what_keeps_pods_from_running(pods: list[Any], said: str) -> None:
    assert trouble_of(pods) == said
