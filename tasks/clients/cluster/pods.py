"""Instances as pods: manifests for Kubernetes and Dask's operator, and the reasons why pods do not run. No I/O."""

from __future__ import annotations

import base64
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tasks.clients.cluster.dask_security import Identity, made_identity
from tasks.clients.cluster.pod_security import (
    DISK_LIMIT,
    DISK_REQUEST,
    MODEL_TEMPORARY,
    PART_LABEL,
    closed_container,
    closed_pod,
    model_mounts,
    own_mounts,
    own_volumes,
    scratch_volume,
)
from tasks.domain.instance import Limits, instance_environment
from tasks.domain.pool import Flavor, Pool

WORKER_CPU = 0.5
WORKER_MEMORY_MIB = 1024
"""For the process next to a model server (measured: 270 MiB, and the bytes in flight)."""
SCHEDULER_CPU = 0.5
SCHEDULER_MEMORY_MIB = 1024
"""For Dask's scheduler, which holds one task per shard (measured: about 170 MiB)."""
MODEL = "model"
"""Name of the model image's container; ``kubectl logs POD --container model`` shows what the model prints."""
RUN_LABEL = "thresher/run"
SERVICE_ANNOTATION = "thresher/service"
MOST_FAILURES = 20
"""After this many of its workers have died, Dask itself does not give a shard to another one."""
_DASK = ("python", "-m", "tasks.clients.cluster.dask_process")
"""Dask's own commands, with the run's certificate."""
_FINE = {"ContainerCreating", "PodInitializing"}


@dataclass(frozen=True, slots=True)
class PodGroup:
    """The pods of one try of a run: one per instance, and one for Dask's scheduler."""

    task_id: str
    attempt: str
    service: str
    pool: Pool
    flavor: Flavor
    count: int
    threads: int
    """Threads of each worker: the shards that it may hold at once."""
    idle_seconds: int
    """The operator removes the pods after this long without work: the run's own process is gone."""
    own: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Environment of the workers in addition to the pool's; it may hold secrets."""
    identity: Identity = field(default_factory=made_identity, repr=False)
    """Authenticates its scheduler, its workers and the run to each other; not for the model's image."""
    model_image: str | None = None
    """The model's image, run next to each worker; None: the worker starts the model server itself."""
    model_port: int = 8080
    given: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Environment of the model's image, as set by the service; it may hold secrets."""

    @property
    def name(self) -> str:
        """Name of the DaskCluster and of the Secret."""
        return f"thresher-{self.task_id[:8]}-{self.attempt}".lower()

    @property
    def namespace(self) -> str:
        """Namespace of the pods."""
        return self.pool.namespace or "default"


def cluster_manifest(group: PodGroup) -> dict[str, Any]:
    """The DaskCluster of a group, as dask-kubernetes makes it, with Thresher's containers."""
    from dask_kubernetes.operator.kubecluster.kubecluster import make_cluster_spec  # takes a second to import

    command = [*_DASK, "dask_worker", "--no-nanny", "--nworkers", "1", "--nthreads", str(group.threads)]
    made: dict[str, Any] = make_cluster_spec(
        name=group.name,
        image=group.pool.image,
        n_workers=group.count,
        worker_command=[*command, "--memory-limit", "0"],
        idle_timeout=group.idle_seconds,
    )
    made["metadata"] |= {
        "namespace": group.namespace,
        "labels": {RUN_LABEL: group.task_id, PART_LABEL: "instance"},
        "annotations": {SERVICE_ANNOTATION: group.service},
    }
    _fit_scheduler(made["spec"]["scheduler"]["spec"], group)
    _fit_worker(made["spec"]["worker"]["spec"], group)
    return made


def secret_manifest(group: PodGroup, owner_uid: str) -> dict[str, Any]:
    """The Secret with every value that may be secret; it is deleted with its owner, the DaskCluster."""
    values = {f"worker.{name}": value for name, value in _own(group).items()}
    if group.model_image is not None:
        values |= {f"model.{name}": value for name, value in group.given.items()}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": group.name,
            "namespace": group.namespace,
            "labels": {RUN_LABEL: group.task_id},
            "ownerReferences": [
                {"apiVersion": "kubernetes.dask.org/v1", "kind": "DaskCluster", "name": group.name, "uid": owner_uid}
            ],
        },
        "type": "Opaque",
        "immutable": True,
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in values.items()},
    }


def _fit_scheduler(pod: dict[str, Any], group: PodGroup) -> None:
    container = _closed(pod, group)
    container["args"] = [
        *(*_DASK, "dask_scheduler", "--protocol", "tls", "--no-dashboard"),
        *("--host", "0.0.0.0", "--port", "8786"),  # noqa: S104  the pod's own
    ]
    failures = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": str(MOST_FAILURES)}
    identity = {name: f"worker.{name}" for name in group.identity.variables()}
    container["env"] = [*_plain({**group.pool.environment, **failures}), *_secret(identity, group)]
    container["resources"] = _amounts(SCHEDULER_CPU, SCHEDULER_MEMORY_MIB)


def _fit_worker(pod: dict[str, Any], group: PodGroup) -> None:
    container = _closed(pod, group)
    own = _own(group)
    container["env"] = [
        *_plain({name: value for name, value in group.pool.environment.items() if name not in own}),
        *_secret({name: f"worker.{name}" for name in own}, group),
    ]
    flavor = group.flavor
    memory = math.ceil(flavor.memory_gb * 1024)
    accelerators = {group.pool.resource_of_accelerators: flavor.accelerators}
    if group.model_image is None:
        container["resources"] = _amounts(WORKER_CPU + flavor.cpu, WORKER_MEMORY_MIB + memory, accelerators)
        return
    container["resources"] = _amounts(WORKER_CPU, WORKER_MEMORY_MIB)
    fixed = {"PORT": str(group.model_port)}
    fitted = instance_environment({}, {}, Limits.of(flavor)) | fixed
    given = {name: f"model.{name}" for name in group.given if name not in fixed}
    pod["containers"].append(
        {
            "name": MODEL,
            "image": group.model_image,
            "imagePullPolicy": "IfNotPresent",
            "env": [
                *_plain({name: value for name, value in fitted.items() if name not in given}),
                *_secret(given, group),
            ],
            "resources": _amounts(flavor.cpu, memory, accelerators),
            "ports": [{"name": "model", "containerPort": group.model_port, "protocol": "TCP"}],
            "securityContext": closed_container(writable_root=group.pool.model_root == "writable"),
            "volumeMounts": model_mounts(),
        }
    )
    pod["volumes"].append(scratch_volume(MODEL_TEMPORARY))


def _closed(pod: dict[str, Any], group: PodGroup) -> dict[str, Any]:
    """Restrict a pod, and its container of the project's own image, which needs no more; the container."""
    # The account is for pulling images and for cloud identities; no container here may call the cluster's API.
    pod["serviceAccountName"] = group.pool.service_account
    pod |= closed_pod()
    pod["volumes"] = own_volumes()
    container: dict[str, Any] = pod["containers"][0]
    container["imagePullPolicy"] = "IfNotPresent"
    container["securityContext"] = closed_container()
    container["volumeMounts"] = own_mounts()
    return container


def _amounts(cpu: float, memory_mib: int, others: Mapping[str, int] | None = None) -> dict[str, Any]:
    """CPU and memory, with requests equal to the limits, so that the pod's QoS class is Guaranteed."""
    found = {"cpu": f"{math.ceil(cpu * 1000)}m", "memory": f"{memory_mib}Mi"}
    found |= {name: str(count) for name, count in (others or {}).items() if count}
    disk = "ephemeral-storage"
    return {"requests": {**found, disk: DISK_REQUEST}, "limits": {**found, disk: DISK_LIMIT}}


def _plain(values: Mapping[str, str]) -> list[dict[str, Any]]:
    # Kubernetes would expand $(VARIABLE).
    return [{"name": name, "value": value.replace("$(", "$$(")} for name, value in values.items()]


def _secret(keys: Mapping[str, str], group: PodGroup) -> list[dict[str, Any]]:
    return [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": group.name, "key": key}}} for name, key in keys.items()
    ]


def _own(group: PodGroup) -> dict[str, str]:
    """A worker's environment in addition to the pool's."""
    return {**group.own, **group.identity.variables()}


def trouble_of(pods: Sequence[Mapping[str, Any]]) -> str:
    """Why pods do not run, one clause for each reason, most frequent first; empty if there is no reason."""
    found = Counter(detail for pod in pods for detail in _troubles(pod))
    return "; ".join(f"{detail} ({count} pods)" if count > 1 else detail for detail, count in found.most_common())


def _troubles(pod: Mapping[str, Any]) -> list[str]:
    status = pod.get("status") or {}
    detail = [
        f"a pod cannot be placed: {condition.get('message') or condition.get('reason')}"
        for condition in status.get("conditions") or ()
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False"
    ]
    for container in status.get("containerStatuses") or ():
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason = waiting.get("reason")
        if not reason or reason in _FINE:
            continue
        ended = (container.get("lastState") or {}).get("terminated") or {}
        how = f"; it ended with status {ended.get('exitCode')} ({ended.get('reason')})" if ended else ""
        image = f" of {container.get('image')}" if "Image" in reason else ""
        detail.append(f"container {container.get('name')}{image}: {reason}{how}")
    return detail
