"""What a pod of ours may do on a Kubernetes cluster: only what it needs (the profile `restricted`). No I/O."""

from __future__ import annotations

from typing import Any

PART_LABEL = "thresher/part"
"""What a pod is a part of; the NetworkPolicies of infra/kubernetes go by it."""
CLUSTER_LABEL = "thresher/kubernetes-api"
"""Pods of the project's own code that may reach the Kubernetes API."""
DISK_REQUEST, DISK_LIMIT = "2Gi", "50Gi"
"""What a container stores for a while: environments of models, packages, what they print."""
USER = 1000
"""Of the project's image, and of images that are made for the original service."""
DATA, TEMPORARY = "data", "tmp"
MODEL_TEMPORARY = "model-tmp"


def closed_pod(*, token: bool = False) -> dict[str, Any]:
    """Fields of a pod's spec; ``token``: it may have the token of its account."""
    return {
        "automountServiceAccountToken": token,
        "enableServiceLinks": False,
        "hostNetwork": False,
        "hostPID": False,
        "hostIPC": False,
        "shareProcessNamespace": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }


def closed_container(*, writable_root: bool = False) -> dict[str, Any]:
    """The security context of a container."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "privileged": False,
        "readOnlyRootFilesystem": not writable_root,
        "runAsNonRoot": True,
        "runAsUser": USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def own_volumes() -> list[dict[str, Any]]:
    """The volumes of a container of the project's image."""
    return [scratch_volume(DATA), scratch_volume(TEMPORARY)]


def own_mounts() -> list[dict[str, Any]]:
    """Where they are."""
    return [{"name": DATA, "mountPath": "/data"}, {"name": TEMPORARY, "mountPath": "/tmp"}]  # noqa: S108


def model_mounts() -> list[dict[str, Any]]:
    """What the model's image may write: a folder that no other container has."""
    return [{"name": MODEL_TEMPORARY, "mountPath": "/tmp"}]  # noqa: S108


def scratch_volume(name: str) -> dict[str, Any]:
    """A folder that goes with its pod."""
    return {"name": name, "emptyDir": {"sizeLimit": DISK_LIMIT}}
