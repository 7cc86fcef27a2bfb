"""Secrets, addresses and headers in a specification: kept out of messages, or refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from tasks.domain.errors import Problem, SpecificationError
from tasks.domain.running_address import is_running_model
from tasks.domain.service import BatchService, is_package_address
from tasks.domain.specification import parse_service, require

LEAST = {"model": "iris", "input_path": "/in", "output_path": "/out"}


def problems(**fields: Any) -> list[Problem]:
    service, _, found = parse_service({**LEAST, **fields})
    assert (service is None) == bool(found)
    return found


def the_problem(**fields: Any) -> Problem:
    (problem,) = problems(**fields)
    return problem


# Secrets

SECRET = "hunter2-in-plain-text"


@pytest.mark.parametrize(
    "fields",
    [
        {"environment": {"9BAD": SECRET}}, {"environment": {"A B": SECRET}}, {"environment": {"": SECRET}},
        {"environment": {"A\n": SECRET}}, {"environment": {"A=B": SECRET}}, {"environment": {"A": f"{SECRET}\0"}},
        {"environment": {"A": [SECRET]}}, {"environment": {"A": {"b": SECRET}}}, {"environment": SECRET},
        {"environment": [SECRET]}, {"environment": {"A": SECRET, "B": 1.5}}, {"environment": {1: SECRET}},
        {"environment": {"A": SECRET}, "instances": 0},
        {"environment": {"A": SECRET}, "result_folder": "infer-result", "schedule": {"interval_minutes": 1}},
        {"environment": {"A": SECRET}, "colour": 1},
        {"input_path": f"https://h/1.csv?Signature={SECRET}"}, {"output_path": f"https://user:{SECRET}@h/out"},
    ],
)  # fmt: skip
def test_service__no_message_holds_a_value_of_the_environment_or_a_signature(fields: dict[str, Any]) -> None:
    with pytest.raises(SpecificationError) as caught:
        require({**LEAST, **fields})
    assert SECRET not in str(caught.value)
    with pytest.raises(ValidationError) as raw:
        BatchService.model_validate({**LEAST, **fields})
    assert SECRET not in str(raw.value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1.5, "environment"), ("x\0", "environment"), (None, "environment"), (True, "environment")],
)
def test_service__names_the_variable_whose_value_is_wrong(value: Any, expected: str) -> None:
    problem = the_problem(environment={"A": value})
    assert problem.field == expected
    assert problem.value is None
    assert "value" in str(problem) or "A" in str(problem)


@pytest.mark.parametrize(
    ("name", "value", "looks_secret"),
    [
        *[(name, "plain", True) for name in ("PASSWORD", "DB_PASSWORD", "password", "Passwd", "SECRET", "MY_SECRET_1",
                                              "HF_TOKEN", "token", "KEY", "API_KEY", "APIKEY", "SSHKEY", "KEY_FILE",
                                              "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "CREDENTIALS",
                                              "PRIVATE_PEM",
                                              "PASSPHRASE")],
        *[(name, "plain", False) for name in ("LOG_LEVEL", "PORT", "OMP_NUM_THREADS", "MODEL_PATH", "LANG")],
        ("API_KEY", "", False),
        ("API_KEY", "{{ prefect.blocks.secret.api-key }}", False),
        ("API_KEY", "{{prefect.blocks.secret.api-key}}", False),
        ("DATABASE_PASSWORD_URL", "db://u:{{ prefect.blocks.secret.pw }}@h", False),
        ("API_KEY", "prefect.blocks.secret.api-key", True),
    ],
)  # fmt: skip
def test_service__knows_what_looks_like_a_secret_in_plain_text(name: str, value: str, looks_secret: bool) -> None:
    service = require({**LEAST, "environment": {name: value, "HOST": "h"}})
    assert service.plain_text_secrets == ([name] if looks_secret else [])


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("{{ prefect.blocks.secret.My_Pass }}", "{{ prefect.blocks.secret.My_Pass }}"),
        ("{{ prefect.blocks.secret.my_token }}", "{{ prefect.blocks.secret.my_token }}"),
        ("a {{prefect.blocks.secret.my-token.value}} b", "{{prefect.blocks.secret.my-token.value}}"),
        ("{{ prefect.blocks.secret.right }}{{ prefect.blocks.secret. }}", "'{{ prefect.blocks.secret. }}'"),
        ("{{ prefect.blocks.secret.my-token }", "{{ prefect.blocks.secret.my-token"),
        ("{{ prefect.blocks.secret.my token }}", "{{ prefect.blocks.secret.my token }}"),
        ("{{ Prefect.Blocks.Secret.my-token }}", "{{ Prefect.Blocks.Secret.my-token }}"),
        ("{{ $prefect.blocks.secret.my-token }}", "{{ $prefect.blocks.secret.my-token }}"),
        ("{{ prefect.blocks.string.mine }}", "nothing but Secret blocks can be referred to"),
        ("{{ prefect.variables.api_key }}", "nothing but Secret blocks can be referred to"),
    ],
)
def test_service__refuses_a_reference_that_would_reach_the_model_as_text(value: str, shown: str) -> None:
    problem = the_problem(environment={"LEFT": "x", "DSN": f"{SECRET} {value}"})
    assert problem.field == "environment.DSN" and problem.value is None
    assert shown in problem.expected and "should be {{ prefect.blocks.secret.NAME }}" in problem.expected
    assert SECRET not in str(problem)


@pytest.mark.parametrize(
    "value",
    ["{{ name }}", "prefect.blocks.secret.x", "{{ my.prefect.thing }}", "{ prefect.blocks }",
     "{{}} prefect.variables.x", "{{prefect.blocks.secret.a}}{{ prefect.blocks.secret.9-b }}"],
)  # fmt: skip
def test_service__takes_braces_that_refer_to_nothing_of_prefects(value: str) -> None:
    assert problems(environment={"A": value}) == []


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Key": f"{SECRET}\n{SECRET}"}, {"Content-Length": SECRET}, f"Authorization: {SECRET}", [SECRET],
        {"X-Key": [SECRET]}, {"X-Key": "{{ prefect.variables.x }} " + SECRET},
    ],
)  # fmt: skip
def test_service__refuses_headers_without_showing_their_values(headers: Any) -> None:
    for problem in problems(headers=headers):
        assert problem.field.startswith("headers") and problem.value is None
        assert SECRET not in str(problem)


def test_service__takes_headers_as_texts_and_the_seconds_of_a_request() -> None:
    service = require({**LEAST, "headers": {"X-Tenant": 7, "X-Key": " a\n"}, "request_timeout_seconds": 2.5})
    assert service.headers == {"X-Tenant": "7", "X-Key": "a"}
    assert service.request_timeout_seconds == 2.5
    for wrong in (0, -1, 86_401, "soon"):
        assert the_problem(request_timeout_seconds=wrong).field == "request_timeout_seconds"


@pytest.mark.parametrize(
    "model", [f"http://me:{SECRET}@host/x", f"https://{SECRET}@host", f"http://a http://me:{SECRET}/x@b"]
)
def test_service__refuses_a_user_or_password_in_an_address_without_showing_it(model: str) -> None:
    problem = the_problem(model=model)
    assert problem.field == "model" and problem.value is None
    assert SECRET not in str(problem)


def test_service__keeps_several_addresses_as_one_text() -> None:
    assert require({**LEAST, "model": "http://a:1\n https://b/x "}).model == "http://a:1 https://b/x"


# What kind of model


@pytest.mark.parametrize(
    ("model", "running", "address"),
    [
        ("iris", False, False), ("iris-2.0", False, False), ("./iris", False, True), (".", False, True),
        ("..", False, True),
        ("~", False, True), ("/models/iris", False, True), ("models/iris", False, True), ("s3://b/iris", False, True),
        ("http://127.0.0.1:8080", True, True), ("HTTPS://host/x", True, True),
    ],
)  # fmt: skip
def test_service__tells_a_name_in_the_store_from_a_folder_and_from_a_server(
    model: str, running: bool, address: bool
) -> None:
    service = require({**LEAST, "model": model})
    assert is_running_model(service.model) is running
    assert is_package_address(service.model) is address
