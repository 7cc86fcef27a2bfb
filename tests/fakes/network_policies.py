"""The connections that NetworkPolicies allow, by Kubernetes' rules: a selected pod allows only what they list."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Object = Mapping[str, Any]


@dataclass(frozen=True)
class Pod:
    """A pod of a namespace, by its labels."""

    labels: Mapping[str, str]
    namespace: str = "thresher"


def allowed(policies: Sequence[Object], source: Pod, target: Pod | str, port: int) -> bool:
    """Whether a pod may connect to another one, or to an address outside the cluster."""
    if not _one_side(policies, "Egress", source, target, port):
        return False
    return isinstance(target, str) or _one_side(policies, "Ingress", target, source, port)


def _one_side(policies: Sequence[Object], way: str, pod: Pod, other: Pod | str, port: int) -> bool:
    of_it = [one for one in policies if _selects_pod(one, pod) and way in one["spec"]["policyTypes"]]
    return not of_it or any(
        _matches_port(rule, port) and _matches_peer(rule.get("from" if way == "Ingress" else "to"), policy, other)
        for policy in of_it
        for rule in policy["spec"].get(way.lower(), [])
    )


def _selects_pod(policy: Object, pod: Pod) -> bool:
    return policy["metadata"]["namespace"] == pod.namespace and selects(policy["spec"]["podSelector"], pod.labels)


def _matches_port(rule: Object, port: int) -> bool:
    return "ports" not in rule or any(one["port"] == port for one in rule["ports"])


def _matches_peer(peers: Sequence[Object] | None, policy: Object, other: Pod | str) -> bool:
    return peers is None or any(_is(peer, policy, other) for peer in peers)


def _is(peer: Object, policy: Object, other: Pod | str) -> bool:
    if block := peer.get("ipBlock"):
        if isinstance(other, Pod):
            return False
        address = ipaddress.ip_address(other)
        networks = [ipaddress.ip_network(one) for one in (block["cidr"], *block.get("except", []))]
        inside, *excepted = [address.version == one.version and address in one for one in networks]
        return inside and not any(excepted)
    if isinstance(other, str):
        return False
    wanted = peer.get("namespaceSelector")
    there = {"kubernetes.io/metadata.name": other.namespace}
    near = other.namespace == policy["metadata"]["namespace"] if wanted is None else selects(wanted, there)
    return near and selects(peer.get("podSelector", {}), other.labels)


def selects(selector: Object, labels: Mapping[str, str]) -> bool:
    """Whether a label selector selects these labels."""
    return all(_expressions(selector, labels)) and selector.get("matchLabels", {}).items() <= labels.items()


def _expressions(selector: Object, labels: Mapping[str, str]) -> Iterator[bool]:
    for one in selector.get("matchExpressions", []):
        if one["operator"] == "In":
            yield labels.get(one["key"]) in one["values"]
        elif one["operator"] == "Exists":
            yield one["key"] in labels
        else:
            raise AssertionError(f"{one['operator']} is used nowhere yet")
