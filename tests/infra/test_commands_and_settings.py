"""What image, compose file and manifests say to programs: settings that exist, commands that parse, no secret."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import prefect_kubernetes.settings
import prefect_redis.cleanup_queue
import prefect_redis.client
import prefect_redis.messaging
import pytest
import yaml
from cyclopts import CycloptsError
from prefect.cli._app import _app as prefect_app
from prefect.settings.legacy import _get_valid_setting_names
from prefect.settings.models.root import Settings as PrefectSettings
from pydantic_settings import BaseSettings

from deployments.cli import app as thresher_app
from deployments.set_up.form_deployment import CONSOLE_POOL
from tasks.domain.pool import Pool
from tasks.domain.settings import Settings

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
COMPOSE: dict[str, Any] = yaml.safe_load((INFRA / "compose.yaml").read_text())
MANIFESTS = [one for path in sorted(INFRA.glob("kubernetes/*.yaml")) for one in yaml.safe_load_all(path.read_text())]
TEXTS = [*INFRA.glob("kubernetes/*"), INFRA / "compose.yaml", INFRA / "compose.env.example", INFRA / "Dockerfile"]
ENVIRONMENTS: dict[str, dict[str, str]] = {}
COMMANDS: dict[str, list[str]] = {}

SECRET = re.compile(r"PASSWORD|SECRET|AUTH|ACCESS_KEY")
NAMES = re.compile(r"_SECRET_(NAME|KEY)$")
REFERENCE = re.compile(r"\$\{[A-Z0-9_]+:\?[^}]*\}|\$\([A-Z0-9_]+\)")


def _containers() -> Iterator[tuple[str, dict[str, Any]]]:
    for one in MANIFESTS:
        pod = one.get("spec", {}).get("template", {}).get("spec", {})
        for container in [*pod.get("initContainers", []), *pod.get("containers", [])]:
            yield f"{one['kind']} {one['metadata']['name']}/{container['name']}", container


for service_name, service in COMPOSE["services"].items():
    ENVIRONMENTS[f"compose {service_name}"] = service.get("environment", {})
    if "command" in service:
        COMMANDS[f"compose {service_name}"] = service["command"]
for one in MANIFESTS:
    if one["kind"] == "ConfigMap":
        ENVIRONMENTS[f"ConfigMap {one['metadata']['name']}"] = one["data"]
for place, container in _containers():
    # What comes from a Secret is no value that could stand in a file.
    ENVIRONMENTS[place] = {one["name"]: one.get("value", "$(SECRET)") for one in container.get("env", [])}
    if said := container.get("args"):
        COMMANDS[place] = said
ENVIRONMENTS["Dockerfile"] = dict(
    re.findall(r"^(?:ENV|   ) +([A-Z_]+)=(\S+)", (INFRA / "Dockerfile").read_text(), flags=re.MULTILINE)
)
OWN = {place: said for place, said in COMMANDS.items() if said[0] in {"prefect", "thresher"}}


def _known() -> set[str]:
    """Every PREFECT_ and THRESHER_ variable that something reads."""
    known = set(_get_valid_setting_names(PrefectSettings))
    for module in (
        prefect_redis.client,
        prefect_redis.messaging,
        prefect_redis.cleanup_queue,
        prefect_kubernetes.settings,
    ):
        for kind in vars(module).values():
            if isinstance(kind, type) and issubclass(kind, BaseSettings):
                prefix = kind.model_config.get("env_prefix", "")
                known |= {f"{prefix}{field}".upper() for field in kind.model_fields}
    return known | {f"THRESHER_{field}".upper() for field in Settings.model_fields}


KNOWN = _known()


def unknown(environment: dict[str, str]) -> set[str]:
    return {name for name in environment if name.startswith(("PREFECT_", "THRESHER_")) and name not in KNOWN}


def secrets_in(environment: dict[str, str]) -> list[str]:
    """Variables whose secret stands there, instead of a reference to where it is kept."""
    found = []
    for name, value in environment.items():
        bare = REFERENCE.sub("", value).strip('",')
        told = SECRET.search(name) and not NAMES.search(name) and bare
        if told or re.search(r"://[^/@:]*:[^/@]+@", bare):
            found.append(name)
    return found


def parse_problem(command: list[str]) -> str | None:
    """What the program would say to this command, without running it."""
    program, *arguments = command
    app = prefect_app if program == "prefect" else thresher_app
    try:
        app.parse_args(arguments, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        return str(error) or type(error).__name__
    return None


@pytest.mark.parametrize("place", ENVIRONMENTS)
def test_settings__exist(place: str) -> None:
    assert unknown(ENVIRONMENTS[place]) == set()


def test_settings__that_do_not_exist_are_found() -> None:
    wrong = {"PREFECT_SERVER_API_AUTHSTRING", "PREFECT_REDIS_MESSAGING_HOSTNAME", "THRESHER_STORE"}
    assert unknown(dict.fromkeys([*wrong, "PREFECT_API_URL", "PREFECT_REDIS_MESSAGING_HOST", "HOME"], "")) == wrong


def test_settings__name_modules_that_exist() -> None:
    named = {value for one in ENVIRONMENTS.values() for value in one.values() if value.startswith("prefect_redis.")}
    assert len(named) == 4
    for module in named:
        importlib.import_module(module)


def test_settings__of_the_server_are_the_same_on_a_machine_and_on_a_cluster() -> None:
    server = ENVIRONMENTS["compose server"]
    cluster = ENVIRONMENTS["ConfigMap thresher-server"] | ENVIRONMENTS["Deployment prefect-api/api"]
    assert set(server) == set(cluster) - {"POSTGRES_PASSWORD"}
    for place in ("compose migrate", "compose services"):
        assert ENVIRONMENTS[place] == server
    for place in ("Job migrate/migrate", "Deployment prefect-services/services"):
        assert ENVIRONMENTS[place] == ENVIRONMENTS["Deployment prefect-api/api"]


@pytest.mark.parametrize("place", ["compose server", "compose worker", "compose pools", "ConfigMap thresher-server"])
def test_settings__send_nothing_home(place: str) -> None:
    assert ENVIRONMENTS[place]["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert ENVIRONMENTS[place]["DO_NOT_TRACK"] == "1"


@pytest.mark.parametrize("place", ["compose server", "compose services", "Deployment prefect-api/api"])
def test_settings__ask_for_authentication(place: str) -> None:
    assert REFERENCE.fullmatch(ENVIRONMENTS[place]["PREFECT_SERVER_API_AUTH_STRING"])


@pytest.mark.parametrize("place", OWN)
def test_commands__parse(place: str) -> None:
    assert parse_problem(OWN[place]) is None


@pytest.mark.parametrize(
    "command",
    [
        "prefect server start --no-service",
        "prefect server service start",
        "prefect server database upgrade -Y",
        "prefect worker begin",
        "thresher pools aply",
        "thresher pools apply --quiet",
    ],
)
def test_commands__that_do_not_exist_are_found(command: str) -> None:
    assert parse_problem(command.split())


def test_commands__are_those_of_every_part() -> None:
    spoken = [" ".join(command[:3]) for command in OWN.values()]
    for command in ("server start", "server services", "server database"):
        assert spoken.count(f"prefect {command}") == 2
    assert spoken.count("prefect worker start") == 4
    assert spoken.count("thresher pools apply") == 2


@pytest.mark.parametrize("place", [place for place, said in OWN.items() if "worker" in said])
def test_commands__start_workers_of_pools_that_exist_with_their_kind(place: str) -> None:
    command = OWN[place]
    name, kind = (command[command.index(option) + 1] for option in ("--pool", "--type"))
    if name == CONSOLE_POOL:
        assert kind == "process"
        return
    pool = Pool.model_validate(yaml.safe_load((INFRA / "pools" / f"{name}.yaml").read_text()))
    assert (pool.name, pool.kind) == (name, kind)


@pytest.mark.parametrize("where", ["compose", "Deployment"])
def test_commands__start_a_worker_for_the_form_on_a_machine_and_on_a_cluster(where: str) -> None:
    served = [
        said[said.index("--pool") + 1] for place, said in OWN.items() if place.startswith(where) and "worker" in said
    ]
    assert len(served) == 2 and CONSOLE_POOL in served


def test_settings__links_begin_with_the_address_that_browsers_use() -> None:
    for place in ("compose worker", "compose console", "compose pools"):
        assert f"{ENVIRONMENTS[place]['PREFECT_UI_URL']}/api" == ENVIRONMENTS["compose server"]["PREFECT_UI_API_URL"]
    server, client = ENVIRONMENTS["ConfigMap thresher-server"], ENVIRONMENTS["ConfigMap thresher-client"]
    assert f"{client['PREFECT_UI_URL']}/api" == server["PREFECT_UI_API_URL"]


@pytest.mark.parametrize("place", ENVIRONMENTS)
def test_secrets__stand_in_no_environment(place: str) -> None:
    assert secrets_in(ENVIRONMENTS[place]) == []


@pytest.mark.parametrize(
    "name",
    [
        "POSTGRES_PASSWORD",
        "PREFECT_API_AUTH_STRING",
        "PREFECT_API_DATABASE_CONNECTION_URL",
        "PREFECT_SERVER_DOCKET_URL",
    ],
)
def test_secrets__that_stand_there_are_found(name: str) -> None:
    told = ENVIRONMENTS["compose server"] | {"POSTGRES_PASSWORD": "${POSTGRES_PASSWORD:?}"}
    spoiled = {key: REFERENCE.sub("secret", value) if key == name else value for key, value in told.items()}
    assert secrets_in(spoiled) == [name]


def test_secrets__stand_in_no_text() -> None:
    """Neither as a value of the example, nor as a long run of letters and digits anywhere."""
    assert not re.findall(r"^[A-Z0-9_]+=\S+", (INFRA / "compose.env.example").read_text(), flags=re.MULTILINE)
    for path in TEXTS:
        assert not re.findall(r"\b(?=[A-Za-z]*\d)[A-Za-z0-9+/]{20,}\b", path.read_text()), path.name
