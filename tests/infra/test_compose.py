"""The server machine of compose.yaml: its schema, what its parts refer to, and its S3 server, which really runs."""

from __future__ import annotations

import copy
import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import check_jsonschema
import jsonschema
import pytest
import requests
import yaml
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from fakes import processes

INFRA = Path(__file__).parents[2] / "infra"
TEXT = (INFRA / "compose.yaml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
EXAMPLE = (INFRA / "compose.env.example").read_text()
SCHEMA = json.loads(
    (Path(check_jsonschema.__file__).parent / "builtin_schemas/vendor/compose-spec.json").read_text(encoding="utf-8")
)
VARIABLE = re.compile(r"\$\{([A-Z0-9_]+)")


def schema_problems(compose: dict[str, Any]) -> list[str]:
    return [error.message for error in jsonschema.Draft202012Validator(SCHEMA).iter_errors(compose)]


def dangling(compose: dict[str, Any]) -> list[str]:
    """What a service refers to and the file does not have; what the file has and no service uses."""
    found: list[str] = []
    used: dict[str, set[str]] = {"volumes": set(), "networks": set()}
    for name, service in compose["services"].items():
        used["networks"].update(service.get("networks", ["default"]))
        used["volumes"].update(volume.split(":")[0] for volume in service.get("volumes", []) if ":" in volume)
        for other, how in service.get("depends_on", {}).items():
            target = compose["services"].get(other)
            if target is None:
                found.append(f"{name} depends on {other}")
            elif how["condition"] == "service_healthy" and "healthcheck" not in target:
                found.append(f"{name} waits for the health of {other}, which has no health check")
            elif (how["condition"] == "service_completed_successfully") != (target.get("restart") == "no"):
                found.append(f"{name} waits for the end of {other}, or {other} ends")
        for host in re.findall(r"(?:@|http://)([a-z0-9]+):\d+", json.dumps(service.get("environment", {}))):
            if host != "localhost" and not reaches(compose, service, host):
                found.append(f"{name} does not reach {host}")
    for kind, names in used.items():
        found += [f"{kind}: {name}" for name in sorted(names ^ set(compose.get(kind, {})))]
    return found


def reaches(compose: dict[str, Any], service: dict[str, Any], host: str) -> bool:
    other = compose["services"].get(host)
    return other is not None and bool(set(service["networks"]) & set(other["networks"]))


def undescribed(text: str, example: str) -> set[str]:
    """Variables that are in one of the two files only; each in the example needs a comment above it."""
    described = set(re.findall(r"^([A-Z0-9_]+)=", example, flags=re.MULTILINE))
    bare = re.findall(r"\n\n([A-Z0-9_]+)=", example)
    return (set(VARIABLE.findall(text)) ^ described) | set(bare)


def test_compose__validates_against_the_compose_specification() -> None:
    assert schema_problems(COMPOSE) == []


def test_compose__with_an_unknown_key_does_not_validate() -> None:
    broken = copy.deepcopy(COMPOSE)
    broken["services"]["worker"]["comand"] = []
    assert schema_problems(broken)


def test_compose__refers_to_nothing_that_it_does_not_have() -> None:
    assert dangling(COMPOSE) == []


@pytest.mark.parametrize(
    ("service", "key", "value", "problem"),
    [
        ("worker", "volumes", ["modles:/data/models"], "volumes: modles"),
        ("worker", "networks", ["outside"], "networks: outside"),
        ("worker", "depends_on", {"gone": {"condition": "service_started"}}, "worker depends on gone"),
        ("pools", "depends_on", {"services": {"condition": "service_healthy"}}, "which has no health check"),
        ("worker", "depends_on", {"server": {"condition": "service_completed_successfully"}}, "or server ends"),
        ("server", "networks", ["outer"], "server does not reach postgres"),
        ("pools", "environment", {"PREFECT_API_URL": "http://prefect:4200/api"}, "pools does not reach prefect"),
    ],
)
def test_compose__that_refers_to_something_missing_is_found(service: str, key: str, value: Any, problem: str) -> None:
    broken = copy.deepcopy(COMPOSE)
    broken["services"][service][key] = value
    assert any(problem in one for one in dangling(broken))


@pytest.mark.parametrize("name", ["worker", "console"])
def test_compose__keeps_workers_from_database_and_messaging(name: str) -> None:
    """Models are other people's code."""
    worker = COMPOSE["services"][name]
    assert not reaches(COMPOSE, worker, "postgres") and not reaches(COMPOSE, worker, "redis")
    assert not {name for name in worker["environment"] if "SERVER_API" in name or "DATABASE" in name}


def open_parts(compose: dict[str, Any]) -> list[str]:
    """Containers that may more than they must."""
    found = []
    for name, service in compose["services"].items():
        closed = {
            "read_only": service.get("read_only") is True,
            "cap_drop": service.get("cap_drop") == ["ALL"] and not service.get("cap_add"),
            "security_opt": service.get("security_opt") == ["no-new-privileges:true"],
            "bounds": bool(service.get("pids_limit") and service.get("mem_limit")),
            "host": not {"privileged", "pid", "ipc", "network_mode", "devices", "userns_mode"} & set(service),
            "socket": "docker.sock" not in json.dumps(service),
            # The image of the project says so itself: tests/infra/test_dockerfile.py.
            "user": "build" in service or service.get("user", "0").split(":")[0] not in ("0", "root"),
            "folders": all(":" not in one or one.split(":")[0] in compose["volumes"] for one in service["volumes"])
            if "volumes" in service
            else True,
        }
        found += [f"{name}: {what}" for what, held in closed.items() if not held]
    return found


def test_compose__containers_may_only_what_they_must() -> None:
    assert open_parts(COMPOSE) == []


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("read_only", False, "read_only"),
        ("cap_add", ["SYS_ADMIN"], "cap_drop"),
        ("security_opt", [], "security_opt"),
        ("pids_limit", None, "bounds"),
        ("network_mode", "host", "host"),
        ("pid", "host", "host"),
        ("privileged", True, "host"),
        ("volumes", ["/var/run/docker.sock:/var/run/docker.sock"], "socket"),
        ("volumes", ["/etc:/host"], "folders"),
    ],
)
def test_compose__containers_that_may_more_are_found(key: str, value: Any, what: str) -> None:
    broken = copy.deepcopy(COMPOSE)
    broken["services"]["worker"][key] = value
    assert f"worker: {what}" in open_parts(broken)


def test_compose__lets_the_store_of_models_be_written_where_none_is_served() -> None:
    mounted = {
        name: next((one for one in service.get("volumes", []) if one.startswith("models:")), None)
        for name, service in COMPOSE["services"].items()
    }
    written = {name for name, mount in mounted.items() if mount is not None and not mount.endswith(":ro")}
    assert written == {"models"} and COMPOSE["services"]["models"]["profiles"] == ["tools"]
    assert mounted["worker"] == mounted["console"] == "models:/data/models:ro"


def test_compose__only_the_servers_processes_are_in_the_network_of_the_database() -> None:
    inner = {name for name, service in COMPOSE["services"].items() if "inner" in service["networks"]}
    assert inner == {"postgres", "redis", "migrate", "server", "services"}
    assert COMPOSE["networks"]["inner"] == {"internal": True}


def test_compose__answers_pages_of_its_own_address_only() -> None:
    told = COMPOSE["services"]["server"]["environment"]
    assert f"{told['PREFECT_SERVER_CORS_ALLOWED_ORIGINS']}/api" == told["PREFECT_UI_API_URL"]


def test_compose__takes_every_image_by_digest_too() -> None:
    images = {service["image"] for service in COMPOSE["services"].values()}
    assert all(re.fullmatch(r"\$\{[A-Z]+_IMAGE:-[a-z]+:[\d.]+\}", one) for one in images), images


def test_compose__publishes_to_this_machine_only_unless_told_otherwise() -> None:
    published = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]
    assert published and all(port.startswith("${THRESHER_LISTEN:-127.0.0.1}:") for port in published)


def test_compose__takes_no_variable_that_the_example_does_not_describe() -> None:
    assert undescribed(TEXT, EXAMPLE) == set()


@pytest.mark.parametrize(
    ("text", "example", "problem"),
    [
        (TEXT + "\n# ${ANOTHER:?}", EXAMPLE, "ANOTHER"),
        (TEXT, EXAMPLE + "\n# Nobody asks.\nANOTHER=\n", "ANOTHER"),
        (TEXT, EXAMPLE.replace("# Required, secret: password of Redis.\n", ""), "REDIS_PASSWORD"),
    ],
)
def test_compose__variable_without_description_is_found(text: str, example: str, problem: str) -> None:
    assert undescribed(text, example) == {problem}


@pytest.fixture
def s3_address(tmp_path: Path) -> Iterator[str]:
    """Address of the S3 server, run by the command of compose.yaml with its environment filled in."""
    service = COMPOSE["services"]["s3"]
    (tmp_path / "objects" / "bucket").mkdir(parents=True)
    (tmp_path / "objects" / "bucket" / "1.txt").write_text("one")
    address = f"127.0.0.1:{processes.free_port()}"
    program, *arguments = service["command"]
    replaced = {"/data/objects": str(tmp_path / "objects"), "0.0.0.0:9000": address}
    keys = {"S3_ACCESS_KEY_ID": "thekey", "S3_SECRET_ACCESS_KEY": "thesecret"}
    environment = {
        name: re.sub(r"\$\{([A-Z0-9_]+)[^}]*\}", lambda found: keys[found[1]], value)
        for name, value in service["environment"].items()
    }
    program = shutil.which(program, path=str(Path(sys.executable).parent)) or program
    log = tmp_path / "s3.log"
    process = processes.start(
        [program, *(replaced.get(one, one) for one in arguments)], log, {"HOME": str(tmp_path), **environment}
    )
    try:
        processes.poll(lambda: answers(address), log.read_text)
        yield address
    finally:
        processes.stop(process)


def answers(address: str) -> bool:
    try:
        return bool(requests.get(f"http://{address}/", timeout=5).status_code)
    except requests.RequestException:
        return False


def test_compose__s3_server_gives_objects_to_its_keys_only(s3_address: str) -> None:
    url = f"http://{s3_address}/bucket/1.txt"
    statuses = {}
    for secret in ("thesecret", "guessed"):
        signed = AWSRequest(method="GET", url=url)
        S3SigV4Auth(Credentials("thekey", secret), "s3", "us-east-1").add_auth(signed)
        statuses[secret] = requests.get(url, headers=dict(signed.headers), timeout=10)
    assert statuses["thesecret"].text == "one"
    assert statuses["guessed"].status_code == 403
    assert requests.get(url, timeout=10).status_code == 400  # not signed at all
