"""Restrictions on Thresher's pods on a Kubernetes cluster: only what they need (the profile `restricted`). No I/O."""

from __future__ import annotations

from typing import Any

PART_LABEL = "thresher/part"
"""The component that a pod belongs to; the NetworkPolicies of infra/kubernetes select pods by it."""
CLUSTER_LABEL = "thresher/kubernetes-api"
"""Marks pods of the project's own code that may reach the Kubernetes API."""
DISK_REQUEST, DISK_LIMIT = "2Gi", "50Gi"
"""Ephemeral storage of a container: environments of models, packages, output."""
USER = 1000
"""User id in the project's image, and in images made for the original service."""
DATA, TEMPORARY = "data", "tmp"
MODEL_TEMPORARY = "model-tmp"


def closed_pod(*, token: bool = False) -> dict[str, Any]:
    """Fields of a pod's spec; ``token``: mount the token of its service account."""
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
    """The mounts of :func:`own_volumes`."""
    return [{"name": DATA, "mountPath": "/data"}, {"name": TEMPORARY, "mountPath": "/tmp"}]  # noqa: S108


def model_mounts() -> list[dict[str, Any]]:
    """A writable folder for the model's image, shared with no other container."""
    return [{"name": MODEL_TEMPORARY, "mountPath": "/tmp"}]  # noqa: S108


def scratch_volume(name: str) -> dict[str, Any]:
    """A folder that is removed with its pod."""
    return {"name": name, "emptyDir": {"sizeLimit": DISK_LIMIT}}
