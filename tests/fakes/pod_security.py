"""Kubernetes' profile `restricted` (Pod Security Standards), and the further requirements of this project."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

HARMLESS = {"configMap", "downwardAPI", "emptyDir", "persistentVolumeClaim", "secret"}
BOUNDS = {"cpu", "memory", "ephemeral-storage"}


def open_parts(pod: Mapping[str, Any], *, token: bool = False, writable: frozenset[str] = frozenset()) -> list[str]:
    """The pod's excess privileges. ``writable``: containers that may write to their root file systems."""
    found = list(_of_the_pod(pod, token))
    for container in [*pod.get("initContainers", []), *pod["containers"]]:
        found += [f"{container['name']}: {said}" for said in _of_container(pod, container, writable)]
    return found


def _of_the_pod(pod: Mapping[str, Any], token: bool) -> Iterator[str]:
    if any(pod.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")):
        yield "shares the host's namespaces"
    if pod.get("shareProcessNamespace"):
        yield "its containers share their processes"
    if pod.get("enableServiceLinks") is not False:
        yield "service links"
    mounts_token = pod.get("automountServiceAccountToken", True)
    if mounts_token and not token and "serviceAccountName" not in pod:
        yield "token of an account"
    for volume in pod.get("volumes", []):
        (kind,) = set(volume) - {"name"}
        if kind not in HARMLESS or (kind == "emptyDir" and not volume["emptyDir"].get("sizeLimit")):
            yield f"volume {volume['name']}"


def _of_container(pod: Mapping[str, Any], container: Mapping[str, Any], writable: frozenset[str]) -> Iterator[str]:
    own = container.get("securityContext", {})
    both = pod.get("securityContext", {}) | own
    if own.get("privileged") or own.get("allowPrivilegeEscalation") is not False:
        yield "can come by privileges"
    if own.get("capabilities") != {"drop": ["ALL"]}:
        yield "has capabilities"
    if both.get("runAsNonRoot") is not True or not both.get("runAsUser"):
        yield "the user may be root"
    if both.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield "no seccomp profile"
    if own.get("readOnlyRootFilesystem") is not True and container["name"] not in writable:
        yield "the root file system is not read-only"
    resources = container.get("resources", {})
    if not all(set(resources.get(kind, {})) >= BOUNDS for kind in ("limits", "requests")):
        yield "no bounds"
    if any(port.get("hostPort") for port in container.get("ports", [])):
        yield "a port of the host"
