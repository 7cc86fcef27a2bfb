"""The cluster's pods may only what they must: by the profile `restricted`, and by NetworkPolicies."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from fakes.network_policies import Pod, allowed
from fakes.pod_security import open_parts

FOLDER = Path(__file__).parents[2] / "infra" / "kubernetes"
Object = dict[str, Any]
READ = {path.name: list(yaml.safe_load_all(path.read_text())) for path in sorted(FOLDER.glob("*.yaml"))}
OBJECTS: list[Object] = [one for name, found in READ.items() if name != "outgoing.yaml" for one in found]
TEMPLATES = {
    f"{one['kind']} {one['metadata']['name']}": one["spec"]["template"]
    for one in OBJECTS
    if "template" in one.get("spec", {})
}
CLOSED = [one for one in OBJECTS if one["kind"] == "NetworkPolicy"]
OPENED = [*CLOSED, *READ["outgoing.yaml"]]


def pod(name: str) -> Pod:
    return Pod(TEMPLATES[name]["metadata"]["labels"])


POSTGRES, REDIS = pod("StatefulSet postgres"), pod("Deployment redis")
API, SERVICES, S3 = pod("Deployment prefect-api"), pod("Deployment prefect-services"), pod("Deployment s3")
CONSOLE, WORKER, POOLS = pod("Deployment console"), pod("Deployment worker-dedicated-example"), pod("Job pools")
MIGRATE = pod("Job migrate")
RUN = Pod({"thresher/part": "run"})
RUN_OF_PODS = Pod({"thresher/part": "run", "thresher/kubernetes-api": "allowed"})
INSTANCE = Pod({"thresher/part": "instance", "dask.org/component": "worker"})
STRANGER = Pod({"app": "stranger"})
ELSEWHERE = Pod({"app": "prefect-api", "thresher/part": "server"}, "other")
OPERATOR = Pod({}, "dask-operator")
NAMES = Pod({"k8s-app": "kube-dns"}, "kube-system")
METADATA = ["169.254.169.254", "fd00:ec2::254", "169.254.170.2", "169.254.170.23", "100.100.100.200", "168.63.129.16"]
PARTS = {"run": RUN, "run of pods": RUN_OF_PODS, "instance": INSTANCE}


@pytest.mark.parametrize("name", TEMPLATES)
def test_pods__are_of_the_profile_restricted_with_a_read_only_root(name: str) -> None:
    assert open_parts(TEMPLATES[name]["spec"]) == []


def _set(*path: str | int) -> Callable[[Any, Any], None]:
    def change(node: Any, value: Any) -> None:
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "value", "said"),
    [
        (_set("containers", 0, "securityContext", "readOnlyRootFilesystem"), False, "read-only"),
        (_set("containers", 0, "securityContext", "capabilities"), {"drop": ["ALL"], "add": ["NET_RAW"]}, "capabil"),
        (_set("containers", 0, "securityContext", "allowPrivilegeEscalation"), True, "privileges"),
        (_set("containers", 0, "securityContext", "privileged"), True, "privileges"),
        (_set("containers", 0, "securityContext", "runAsUser"), 0, "user"),
        (_set("containers", 0, "securityContext", "seccompProfile"), {"type": "Unconfined"}, "seccomp"),
        (_set("containers", 0, "resources"), {"limits": {"memory": "1Gi"}}, "bounds"),
        (_set("securityContext"), {}, "user"),
        (_set("hostNetwork"), True, "host"),
        (_set("hostPID"), True, "host"),
        (_set("shareProcessNamespace"), True, "processes"),
        (_set("enableServiceLinks"), True, "service links"),
        (_set("volumes"), [{"name": "data", "hostPath": {"path": "/"}}], "volume"),
        (_set("volumes"), [{"name": "data", "emptyDir": {}}], "volume"),
        (_set("automountServiceAccountToken"), True, "token"),
    ],
)
def test_pods__that_may_more_are_found(change: Callable[[Any, Any], None], value: Any, said: str) -> None:
    spec = copy.deepcopy(TEMPLATES["Deployment console"]["spec"])
    change(spec, value)
    assert any(said in one for one in open_parts(spec))


def test_namespace__enforces_the_profile() -> None:
    (one,) = READ["namespace.yaml"]
    for mode in ("enforce", "warn", "audit"):
        assert one["metadata"]["labels"][f"pod-security.kubernetes.io/{mode}"] == "restricted"


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("policies", [CLOSED, OPENED], ids=["closed", "opened"])
def test_models__reach_neither_database_messaging_nor_metadata(part: str, policies: list[Object]) -> None:
    one = PARTS[part]
    assert not allowed(policies, one, POSTGRES, 5432) and not allowed(policies, one, REDIS, 6379)
    assert not any(allowed(policies, one, address, port) for address in METADATA for port in (80, 443))
    assert allowed(policies, one, API, 4200) and allowed(policies, one, S3, 9000) and allowed(policies, one, NAMES, 53)
    assert not allowed(policies, one, CONSOLE, 8080) and not allowed(policies, one, STRANGER, 80)


@pytest.mark.parametrize("one", [RUN, INSTANCE], ids=["run", "instance"])
def test_models__reach_the_internet_by_outgoing_yaml_only_and_never_an_inner_network(one: Pod) -> None:
    for address in ("93.184.216.34", "8.8.8.8"):
        assert not allowed(CLOSED, one, address, 443)
        assert allowed(OPENED, one, address, 443) and not allowed(OPENED, one, address, 22)
    for inner in ("10.96.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "127.0.0.1"):
        for port in (443, 6443):
            assert not allowed(OPENED, one, inner, port)


def test_kubernetes_api__is_reached_by_the_worker_and_by_runs_that_make_pods() -> None:
    there = [one for one in (WORKER, RUN_OF_PODS) if allowed(CLOSED, one, "10.96.0.1", 443)]
    assert there == [WORKER, RUN_OF_PODS]
    for one in (RUN, INSTANCE, CONSOLE, POOLS, API, SERVICES, S3, POSTGRES, REDIS, STRANGER):
        assert not allowed(CLOSED, one, "10.96.0.1", 443)


def test_policies__let_each_part_reach_what_it_needs() -> None:
    for server in (API, SERVICES, MIGRATE):
        assert allowed(CLOSED, server, POSTGRES, 5432) and allowed(CLOSED, server, REDIS, 6379)
        assert allowed(CLOSED, server, NAMES, 53)
    for client in (CONSOLE, WORKER, POOLS):
        assert allowed(CLOSED, client, API, 4200) and allowed(CLOSED, client, S3, 9000)
        assert not allowed(CLOSED, client, POSTGRES, 5432) and not allowed(CLOSED, client, REDIS, 6379)
    for source in (RUN, RUN_OF_PODS, INSTANCE):
        assert allowed(CLOSED, source, INSTANCE, 8786)
    assert allowed(CLOSED, OPERATOR, INSTANCE, 8787)
    assert allowed(OPENED, SERVICES, "93.184.216.34", 443) and not allowed(OPENED, SERVICES, "169.254.169.254", 443)


def test_policies__let_nothing_else_in_or_out() -> None:
    every = {name: pod(name) for name in TEMPLATES} | PARTS
    for name, target in every.items():
        assert not allowed(CLOSED, STRANGER, target, 4200), name
        assert not allowed(CLOSED, ELSEWHERE, target, 5432), name
    for silent in (POSTGRES, REDIS, S3, STRANGER):
        assert not any(allowed(CLOSED, silent, target, port) for target in every.values() for port in (4200, 9000))
        assert not allowed(CLOSED, silent, NAMES, 53) and not allowed(OPENED, silent, "8.8.8.8", 443)
    assert not allowed(CLOSED, API, INSTANCE, 8786) and not allowed(CLOSED, WORKER, INSTANCE, 8786)
