"""Prefect's settings from variables and from the files of the current folder that it reads."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from tasks.domain.errors import Problem
from tasks.domain.paths import redact

SERVER = "PREFECT_API_URL"
DOTENV, OWN, PROJECT = ".env", "prefect.toml", "pyproject.toml"
"""Files of the current folder, in order of precedence."""
_HEADERS: dict[str, tuple[str, ...]] = {OWN: (), PROJECT: ("tool", "prefect")}
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_LEVEL_NAMES = ("PREFECT_LOGGING_LEVEL", "PREFECT_LOGGING_INTERNAL_LEVEL", "PREFECT_INTERNAL_LOGGING_LEVEL")
_KEYS = ("PREFECT_API_KEY", "PREFECT_API_AUTH_STRING")
TABLES = frozenset(
    """
    api cli client client.metrics cloud deployments events experiments flows internal logging logging.to_api plugins
    results runner runner.server server server.api server.concurrency server.database server.database.sqlalchemy
    server.database.sqlalchemy.connect_args server.database.sqlalchemy.connect_args.tls server.deployments server.docket
    server.ephemeral server.events server.flow_run_graph server.logs server.services
    server.services.cancellation_cleanup server.services.db_vacuum server.services.event_persister
    server.services.event_logger server.services.foreman server.services.late_runs server.services.scheduler
    server.services.pause_expirations server.services.repossessor server.services.cleanup_reconciler
    server.services.task_run_recorder server.services.triggers server.tasks server.tasks.scheduling server.ui
    server.worker_channel tasks tasks.runner tasks.scheduling telemetry testing worker worker.webserver
    """.split()  # noqa: SIM905 - a line for each, else
)
"""Keys of Prefect's files that hold tables."""


class Given(NamedTuple):
    """A setting, by the name of its variable, and its origin."""

    name: str
    value: object
    where: str


def of_variables(environment: Mapping[str, str | None], file: str = "") -> list[Given]:
    """The settings in variables, or in a file of variables."""
    tail = f" of {file}" if file else ""
    pairs = [(name, value) for name, value in environment.items() if name.upper().startswith("PREFECT_")]
    return [Given(name.upper(), value, f"{name}{tail}") for name, value in pairs if value is not None]


def of_toml(file: str, text: str) -> tuple[list[Given], list[Problem]]:
    """The settings in a TOML file, and the problems in it with which Prefect could not even be imported."""
    try:
        held: object = tomllib.loads(text)
    except ValueError as error:
        return [], [Problem(file, None, f"should be TOML, since Prefect reads its settings there: {error}")]
    above: list[str] = []
    for key in _HEADERS[file]:
        assert isinstance(held, dict)
        above.append(key)
        held = held.get(key, {})
        if not isinstance(held, dict):
            return [], [_no_table(file, above, held)]
    assert isinstance(held, dict)
    flat = list(_flat(held, []))
    wrong = [_no_table(file, [*above, *path], value) for path, value in flat if ".".join(path) in TABLES]
    given = [
        Given("_".join(["PREFECT", *path]).upper(), value, f"{'.'.join([*above, *path])} of {file}")
        for path, value in flat
    ]
    return given, wrong


def _no_table(file: str, keys: Sequence[str], value: object) -> Problem:
    return Problem(f"{'.'.join(keys)} of {file}", value, "should be a table of Prefect's settings")


def _flat(held: Mapping[str, object], below: list[str]) -> Iterator[tuple[list[str], object]]:
    for key, value in held.items():
        path = [*below, key]
        if isinstance(value, dict):
            yield from _flat(value, path)
        else:
            yield path, value


def first_of(given: Sequence[Given], name: str) -> Given | None:
    """The value used of a setting that may be given in several places, in order of precedence."""
    return next((one for one in given if one.name == name), None)


def wrong_settings(given: Sequence[Given]) -> Iterator[Problem]:
    """Settings that Prefect accepts but cannot use, or reports unclearly: addresses, log levels, keys."""
    address = first_of(given, SERVER)
    if address is not None and address.value != "" and not _is_address(address.value):
        shown = redact(str(address.value))
        yield Problem(address.where, shown, "should be the API of a Prefect server, such as http://host:4200/api")
    for name in _LEVEL_NAMES:
        level = first_of(given, name)
        if level is not None and level.value != "" and str(level.value).upper() not in _LEVELS:
            yield Problem(level.where, level.value, f"should be one of {', '.join(_LEVELS)}")
    for name in _KEYS:
        key = first_of(given, name)
        value = str(key.value).strip() if key is not None else ""
        if key is not None and not (value.isascii() and (not value or value.isprintable())):
            yield Problem(key.where, None, "should be letters, digits and signs of ASCII: headers carry no others")


def _is_address(address: object) -> bool:
    if not isinstance(address, str):
        return False
    try:
        parts = urlsplit(address)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        return fits and not any(sign.isspace() for sign in address)
    except ValueError:
        return False


def giver_of(field: str, value: object, given: Sequence[Given]) -> Given | None:
    """The origin of a setting that Prefect refuses by its field's name, and by its value unless that is None.

    A setting may have several names that end in the field's name or hold all its words; the value distinguishes them.
    """
    plain = field.lower().removeprefix("prefect_")
    words = set(plain.split("_"))
    ends = [one for one in given if one.name.endswith(f"_{plain.upper()}")]
    holds = [one for one in given if words <= set(one.name.lower().split("_"))]
    same = [one for one in (*ends, *holds) if str(one.value).lower() == str(value).lower()]
    return next(iter(same or ends), None)
