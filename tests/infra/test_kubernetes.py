"""The manifests: each validates against its schema, what they refer to exists, and README applies all of them."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from deployments.set_up.form_deployment import CONSOLE_POOL
from tasks.domain.credentials import Credentials
from tasks.domain.pool import Pool

FOLDER = Path(__file__).parents[2] / "infra" / "kubernetes"
README = (FOLDER / "README.md").read_text()
POOLS = FOLDER.parent / "pools"
NAMESPACE = "thresher"
Object = dict[str, Any]
OBJECTS: list[Object] = [one for path in sorted(FOLDER.glob("*.yaml")) for one in yaml.safe_load_all(path.read_text())]


def named(kind: str, name: str, objects: list[Object]) -> Object:
    (found,) = [one for one in objects if one["kind"] == kind and one["metadata"]["name"] == name]
    return found


def names(kind: str, objects: list[Object]) -> set[str]:
    return {one["metadata"]["name"] for one in objects if one["kind"] == kind}


def schema_problems(objects: list[Object]) -> list[str]:
    found = []
    for one in objects:
        try:
            kubernetes_validate.validate(one, kubernetes_validate.latest_version(), strict=True)
        except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
            found.append(f"{one['kind']} {one['metadata']['name']}: {error}")
    return found


def secrets(readme: str) -> dict[str, set[str]]:
    """The secrets that README's commands make, with their keys."""
    return {
        name: set(re.findall(r"--from-literal=([\w-]+)=", rest))
        for name, rest in re.findall(r"create secret generic (\S+) (.*)", readme)
    }


def pool_files(readme: str) -> dict[str, set[str]]:
    """The ConfigMaps of pool files that README's commands make, with the files."""
    return {
        name: set(re.findall(r"--from-file=(\S+)", rest))
        for name, rest in re.findall(r"create configmap (\S+) (.*)", readme)
    }


def values(node: Any, key: str) -> Iterator[Any]:
    """Every value under this key, at any depth."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name == key:
                yield value
            yield from values(value, key)
    elif isinstance(node, list):
        for value in node:
            yield from values(value, key)


def dangling(objects: list[Object], readme: str) -> list[str]:
    """What the manifests refer to and neither they nor README's commands make."""
    kept = secrets(readme)
    found: list[str] = []
    for one in objects:
        where = f"{one['kind']} {one['metadata']['name']}"
        if one["kind"] != "Namespace" and one["metadata"].get("namespace") != NAMESPACE:
            found.append(f"{where}: namespace")
        for key in values(one, "secretKeyRef"):
            if key["key"] not in kept.get(key["name"], set()):
                found.append(f"{where}: key {key['key']} of secret {key['name']}")
        found += [f"{where}: secret {ref['name']}" for ref in values(one, "secretRef") if ref["name"] not in kept]
        for kind, key, field in [
            ("ConfigMap", "configMapRef", "name"),
            ("PersistentVolumeClaim", "persistentVolumeClaim", "claimName"),
        ]:
            for ref in values(one, key):
                if ref[field] not in names(kind, objects):
                    found.append(f"{where}: {kind} {ref[field]}")
        for ref in values(one, "configMap"):
            if ref["name"] not in names("ConfigMap", objects) | set(pool_files(readme)):
                found.append(f"{where}: ConfigMap {ref['name']}")
        for account in values(one, "serviceAccountName"):
            if account not in names("ServiceAccount", objects):
                found.append(f"{where}: ServiceAccount {account}")
        if one["kind"] == "RoleBinding":
            for ref in [one["roleRef"], *one["subjects"]]:
                if ref["name"] not in names(ref["kind"], objects):
                    found.append(f"{where}: {ref['kind']} {ref['name']}")
        for host in re.findall(r"(?:@|http://)([a-z0-9-]+):\d+", str(one)):
            if host != "localhost" and host not in names("Service", objects):
                found.append(f"{where}: host {host}")
        found += [f"{where}: {problem}" for problem in pod_problems(one)]
        if one["kind"] == "Service":
            found += [f"{where}: {problem}" for problem in service_problems(one, objects)]
    return found


def pod_problems(one: Object) -> Iterator[str]:
    """Volumes that are mounted and not there, or there and not mounted; selectors that miss their own pods."""
    template = one.get("spec", {}).get("template")
    if template is None:
        return
    pod = template["spec"]
    there = {volume["name"] for volume in pod.get("volumes", [])}
    there |= {claim["metadata"]["name"] for claim in one["spec"].get("volumeClaimTemplates", [])}
    mounted = {mount["name"] for mounts in values(pod, "volumeMounts") for mount in mounts}
    yield from (f"volume {name}" for name in sorted(there ^ mounted))
    wanted = one["spec"].get("selector", {}).get("matchLabels", {})
    if not wanted.items() <= template["metadata"]["labels"].items():
        yield "selector"
    for container in pod["containers"]:
        ports = {port["name"] for port in container.get("ports", [])}
        for key in ("httpGet", "tcpSocket"):
            yield from (f"port {probe['port']}" for probe in values(container, key) if probe["port"] not in ports)


def service_problems(service: Object, objects: list[Object]) -> Iterator[str]:
    selected = [
        one["spec"]["template"]
        for one in objects
        if service["spec"]["selector"].items()
        <= one.get("spec", {}).get("template", {}).get("metadata", {}).get("labels", {}).items()
    ]
    if len(selected) != 1:
        yield f"selects {len(selected)} kinds of pods"
    open_ports = {port["containerPort"] for ports in values(selected, "ports") for port in ports}
    yield from (f"port {port['port']}" for port in service["spec"]["ports"] if port["port"] not in open_ports)


def unapplied(readme: str, files: set[str]) -> set[str]:
    """Manifests that README's commands do not apply, and the other way round."""
    return set(re.findall(r"-f (\S+\.yaml)", readme)) ^ files


def test_manifests__validate_strictly_against_the_newest_schemas() -> None:
    assert len(OBJECTS) >= 20
    assert schema_problems(OBJECTS) == []


def test_manifests__with_an_unknown_field_do_not_validate() -> None:
    broken = copy.deepcopy(OBJECTS)
    named("Deployment", "prefect-api", broken)["spec"]["replica"] = 2
    named("Job", "pools", broken)["spec"]["template"]["spec"]["restartPolicy"] = 1
    assert len(schema_problems(broken)) == 2


def test_manifests__refer_to_nothing_that_does_not_exist() -> None:
    assert dangling(OBJECTS, README) == []


def _rename_claim(objects: list[Object]) -> None:
    named("PersistentVolumeClaim", "objects", objects)["metadata"]["name"] = "other"


def _rename_service(objects: list[Object]) -> None:
    named("Service", "api", objects)["metadata"]["name"] = "other"


def _other_secret_key(objects: list[Object]) -> None:
    next(values(named("Job", "migrate", objects), "secretKeyRef"))["key"] = "other"


def _other_secret(objects: list[Object]) -> None:
    next(values(named("Job", "pools", objects), "secretRef"))["name"] = "other"


def _rename_settings(objects: list[Object]) -> None:
    named("ConfigMap", "thresher-server", objects)["metadata"]["name"] = "other"


def _other_pool_files(objects: list[Object]) -> None:
    next(values(named("Job", "pools", objects), "configMap"))["name"] = "other"


def _no_account(objects: list[Object]) -> None:
    objects.remove(named("ServiceAccount", "thresher-worker", objects))


def _rename_role(objects: list[Object]) -> None:
    named("Role", "thresher-worker", objects)["metadata"]["name"] = "other"


def _other_mount(objects: list[Object]) -> None:
    next(values(named("StatefulSet", "postgres", objects), "volumeMounts"))[0]["name"] = "other"


def _other_label(objects: list[Object]) -> None:
    named("Deployment", "redis", objects)["spec"]["template"]["metadata"]["labels"]["app"] = "other"


def _other_port(objects: list[Object]) -> None:
    named("Service", "s3", objects)["spec"]["ports"][0]["port"] = 9001


def _other_probe(objects: list[Object]) -> None:
    next(values(named("Deployment", "prefect-api", objects), "readinessProbe"))["httpGet"]["port"] = "other"


def _other_namespace(objects: list[Object]) -> None:
    del named("Role", "thresher-worker", objects)["metadata"]["namespace"]


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (_rename_claim, "PersistentVolumeClaim objects"),
        (_rename_service, "host api"),
        (_other_secret_key, "key other of secret thresher"),
        (_other_secret, "secret other"),
        (_rename_settings, "ConfigMap thresher-server"),
        (_other_pool_files, "ConfigMap other"),
        (_no_account, "ServiceAccount thresher-worker"),
        (_rename_role, "Role thresher-worker"),
        (_other_mount, "volume other"),
        (_other_label, "selector"),
        (_other_port, "port 9001"),
        (_other_probe, "port other"),
        (_other_namespace, "namespace"),
    ],
)
def test_manifests__that_refer_to_something_missing_are_found(
    spoil: Callable[[list[Object]], None], problem: str
) -> None:
    broken = copy.deepcopy(OBJECTS)
    spoil(broken)
    assert any(problem in one for one in dangling(broken, README))


def test_manifests__hold_no_secret_object() -> None:
    assert names("Secret", OBJECTS) == set()


def test_manifests__run_two_api_pods_without_background_services_and_one_with_them() -> None:
    api = named("Deployment", "prefect-api", OBJECTS)["spec"]
    assert api["replicas"] == 2
    assert "--no-services" in api["template"]["spec"]["containers"][0]["args"]
    assert named("Deployment", "prefect-services", OBJECTS)["spec"]["replicas"] == 1


def test_manifests__give_only_the_worker_a_way_to_the_cluster() -> None:
    """Code that can read the token of a service account can make jobs."""
    for one in OBJECTS:
        pod = one.get("spec", {}).get("template", {}).get("spec")
        if pod is not None:
            assert ("serviceAccountName" in pod) != (pod.get("automountServiceAccountToken") is False), one["metadata"]


def test_manifests__no_token_where_models_run() -> None:
    """Runs and instances: tests/deployments/test_pool_templates.py, tests/clients/test_pods.py."""
    allowed = [
        one["metadata"]["name"]
        for one in OBJECTS
        if "thresher/kubernetes-api" in one.get("spec", {}).get("template", {}).get("metadata", {}).get("labels", {})
    ]
    assert allowed == ["worker-dedicated-example"]


def test_manifests__let_only_server_processes_reach_database_and_messaging() -> None:
    allowed = {"thresher/part": "server"}
    for name in ("postgres", "redis"):
        policy = named("NetworkPolicy", name, OBJECTS)["spec"]
        assert policy["podSelector"]["matchLabels"] == {"app": name}
        assert policy["ingress"][0]["from"] == [{"podSelector": {"matchLabels": allowed}}]
    parts = {
        one["metadata"]["name"]
        for one in OBJECTS
        if allowed.items() <= one.get("spec", {}).get("template", {}).get("metadata", {}).get("labels", {}).items()
    }
    assert parts == {"migrate", "prefect-api", "prefect-services"}


@pytest.mark.parametrize(
    "pool",
    [
        pytest.param(pool, id=pool["name"])
        for pool in (yaml.safe_load(path.read_text()) for path in sorted(POOLS.glob("*.yaml")))
        if pool["kind"] == "kubernetes"
    ],
)
def test_manifests__have_what_the_pools_on_the_cluster_ask_for(pool: dict[str, Any]) -> None:
    assert pool["namespace"] == NAMESPACE
    assert pool["image"] in {image for image in values(OBJECTS, "image") if image.startswith("thresher:")}
    assert pool.get("service_account", "default") in {"default", *names("ServiceAccount", OBJECTS)}
    told = dict(pool["environment"])
    # Keys are kept in a block, which README says how to make; the addresses are the same as everywhere on the cluster.
    assert f"Secret called `{told.pop('THRESHER_S3_CREDENTIALS_BLOCK')}`" in README
    settings = named("ConfigMap", "thresher-client", OBJECTS)["data"]
    assert told.items() <= settings.items()
    assert {"THRESHER_MODEL_STORE", "AWS_ENDPOINT_URL"} <= set(told)


def test_manifests__let_runs_make_the_pods_of_their_instances_and_nothing_else() -> None:
    text = (POOLS / "dedicated-example.yaml").read_text()
    pods, count = re.subn(r"^# (service_account|cluster): ", r"\1: ", text, flags=re.MULTILINE)
    pool = Pool.model_validate(yaml.safe_load(pods))
    assert count == 2 and pool.makes_pods
    binding = named("RoleBinding", str(pool.service_account), OBJECTS)
    assert [one["name"] for one in binding["subjects"]] == [pool.service_account]
    rules = named("Role", binding["roleRef"]["name"], OBJECTS)["rules"]
    allowed = {(resource, verb) for rule in rules for resource in rule["resources"] for verb in rule["verbs"]}
    assert {("daskclusters", "create"), ("daskclusters", "delete"), ("secrets", "create")} <= allowed
    # Secrets are made, never read; only what the run has made itself is deleted.
    assert {verb for resource, verb in allowed if resource == "secrets"} == {"create"}
    assert {resource for resource, verb in allowed if verb not in ("get", "list")} == {"daskclusters", "secrets"}


def test_manifests__apply_the_pool_files_of_the_config_map_and_serve_each_of_them() -> None:
    pod = named("Job", "pools", OBJECTS)["spec"]["template"]["spec"]
    (mount,) = [one for one in pod["containers"][0]["volumeMounts"] if one["name"] == "pool-files"]
    assert {"name": "THRESHER_POOLS", "value": mount["mountPath"]} in pod["containers"][0]["env"]
    (files,) = pool_files(README).values()
    pools = [Pool.model_validate(yaml.safe_load((FOLDER / file).read_text())) for file in files]
    arguments = [said for said in values(OBJECTS, "args") if "worker" in said]
    served = {said[said.index("--pool") + 1]: said[said.index("--type") + 1] for said in arguments}
    assert served == {CONSOLE_POOL: "process", **{pool.name: pool.kind for pool in pools}}


def test_readme__shows_a_block_that_holds_what_the_storage_needs() -> None:
    (block,) = re.findall(r"^```json\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
    read = Credentials.model_validate(json.loads(block))
    settings = named("ConfigMap", "thresher-client", OBJECTS)["data"]
    assert (read.endpoint_url, read.region) == (settings["AWS_ENDPOINT_URL"], settings["AWS_REGION"])
    assert read.access_key_id and read.secret_access_key


def test_readme__applies_every_manifest() -> None:
    files = {path.name for path in FOLDER.glob("*.yaml")}
    assert unapplied(README, files) == set()
    assert unapplied(README, files | {"forgotten.yaml"}) == {"forgotten.yaml"}


@pytest.mark.parametrize("kind", ["job", "deployment", "statefulset", "service"])
def test_readme__names_only_what_the_manifests_hold(kind: str) -> None:
    known = {name for one in OBJECTS if one["kind"].lower() == kind for name in [one["metadata"]["name"]]}
    assert set(re.findall(rf"\b{kind}/([\w-]+)", README)) <= known
