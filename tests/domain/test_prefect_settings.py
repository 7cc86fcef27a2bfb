"""Prefect's settings in variables and in the files of the current folder: which are wrong, and who gives one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prefect.settings.models.root import Settings
from pydantic import BaseModel

from tasks.domain.prefect_settings import (
    OWN,
    PROJECT,
    TABLES,
    Given,
    first_of,
    giver_of,
    of_toml,
    of_variables,
    wrong_settings,
)


@pytest.mark.parametrize(
    ("file", "text", "field", "expected"),
    [
        (OWN, "[[[", OWN, "should be TOML"),
        (PROJECT, "[[[", PROJECT, "should be TOML"),
        (OWN, "api = 3", "api of prefect.toml", "should be a table"),
        (OWN, "[server]\napi = 3", "server.api of prefect.toml", "should be a table"),
        (PROJECT, "tool = 3", "tool of pyproject.toml", "should be a table"),
        (PROJECT, "[tool]\nprefect = 3", "tool.prefect of pyproject.toml", "should be a table"),
        (PROJECT, "[tool.prefect]\napi = 3", "tool.prefect.api of pyproject.toml", "should be a table"),
    ],
)
def test_file__that_would_stop_prefects_import_is_named_with_the_key(
    file: str, text: str, field: str, expected: str
) -> None:
    (problem,) = of_toml(file, text)[1]
    assert problem.field == field and problem.expected.startswith(expected)


def test_file__gives_settings_by_the_names_of_their_variables() -> None:
    given, wrong = of_toml(PROJECT, "[project]\nname = 'x'\n[tool.prefect.api]\nurl = 'http://h/api'")
    assert (given, wrong) == ([Given("PREFECT_API_URL", "http://h/api", "tool.prefect.api.url of pyproject.toml")], [])
    assert of_toml(OWN, "unknown = 3\n[api]\nfoo = 1")[1] == []  # Prefect passes over them


def test_tables__are_those_of_prefect() -> None:
    def tables(model: type[BaseModel], above: str = "") -> Iterator[str]:
        for name, field in model.model_fields.items():
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                yield f"{above}{name}"
                yield from tables(field.annotation, f"{above}{name}.")

    assert set(tables(Settings)) == TABLES


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("PREFECT_API_URL", "localhost:4200", "should be the API of a Prefect server"),
        ("PREFECT_API_URL", 5, "should be the API of a Prefect server"),
        ("PREFECT_LOGGING_LEVEL", "nope", "should be one of DEBUG"),
        ("PREFECT_LOGGING_INTERNAL_LEVEL", "nope", "should be one of DEBUG"),
        ("PREFECT_INTERNAL_LOGGING_LEVEL", "nope", "should be one of DEBUG"),
        ("PREFECT_API_KEY", "k\xfc", "should be letters"),
    ],
)
def test_setting__that_cannot_be_used_is_named_by_where_it_stands(name: str, value: object, expected: str) -> None:
    (problem,) = wrong_settings([Given(name, value, "place"), Given(name, "overridden", "elsewhere")])
    assert problem.field == "place" and problem.expected.startswith(expected)


def test_setting__that_is_overridden_is_not_blamed() -> None:
    given = [
        *of_variables({"PREFECT_API_URL": "http://h/api"}),
        Given("PREFECT_API_URL", "x", "api.url of prefect.toml"),
    ]
    assert list(wrong_settings(given)) == []
    assert first_of(given, "PREFECT_API_URL") == given[0]


def test_setting__with_several_names_is_told_by_its_value() -> None:
    given = of_variables({"PREFECT_LOGGING_LEVEL": "ERROR", "PREFECT_LOGGING_INTERNAL_LEVEL": "nope"})
    assert giver_of("logging_level", "nope", given) == given[1]
    assert giver_of("prefect_logging_level", "error", given) == given[0]
    assert giver_of("logging_level", None, given) == given[0]  # the value is not known: by its name
    assert giver_of("other", "nope", given) is None
