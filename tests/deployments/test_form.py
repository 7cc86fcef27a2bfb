"""The forms of the Prefect user interface: what may be chosen, plain fields, and parameters that fit them."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import jsonschema
import pytest

from deployments.services.service import parameters_of
from deployments.set_up.deploy_service import deploy_service
from deployments.templates.form import form
from flows.batch_service import batch_service
from tasks.clients.pool_files import read_pools
from tasks.domain.pool import Pool
from tasks.domain.service import BatchService
from tasks.domain.settings import read_settings

PATHS = {"model": "/model", "input_path": "/in", "output_path": "/out"}


@pytest.fixture
def pools() -> dict[str, Pool]:
    return read_pools(read_settings().pools)


def fields(schema: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = schema["definitions"]["BatchService"]["properties"]
    return found


@pytest.mark.parametrize("flow", [batch_service, deploy_service])
def test_form__offers_the_pools_and_flavors_there_are(flow: Any, pools: dict[str, Pool]) -> None:
    shown = fields(form(flow, pools))
    assert shown["resource_pool"]["enum"] == [*pools] and shown["resource_pool"]["default"] == "public-cpu"
    assert set(shown["flavor"]["enum"]) == {one.name for pool in pools.values() for one in pool.flavors}
    assert "public-cpu: cpu-1 (1 CPU, 2 GiB), cpu-2 (2 CPU, 8 GiB), cpu-8" in shown["flavor"]["description"]
    assert "gpu-2 (16 CPU, 128 GiB, accelerators: 2)" in shown["flavor"]["description"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, ""),
        ({"flavor": "cpu-1"}, ""),
        ({"flavor": "gpu-1", "resource_pool": "public-gpu"}, ""),
        ({"resource_pool": "dedicated-example"}, ""),
        ({"flavor": "gpu-1"}, "'gpu-1' is not one of ['cpu-1', 'cpu-2', 'cpu-8']"),
        ({"flavor": "cpu-1", "resource_pool": "public-gpu"}, "'cpu-1' is not one of ['gpu-1', 'gpu-2']"),
    ],
)
def test_form__takes_flavors_of_the_chosen_pool_only(
    given: dict[str, Any], message: str, pools: dict[str, Pool]
) -> None:
    """As Prefect's server checks it, and shows it at the field."""
    from prefect.utilities.schema_tools.validation import build_error_obj, validate

    schema = json.loads(json.dumps(form(deploy_service, pools)))
    errors = build_error_obj(validate({"service": {"name": "x", **PATHS, **given}}, schema, preprocess=True))
    expected = [{"property": "service", "errors": [{"property": "flavor", "errors": [message]}]}] if message else []
    assert errors == {"errors": expected, "valid": not message}


def test_form__of_a_service_offers_the_flavors_of_its_pool_only(pools: dict[str, Pool]) -> None:
    shown = fields(form(batch_service, {"public-gpu": pools["public-gpu"]}))
    assert (shown["flavor"]["enum"], shown["resource_pool"]["enum"]) == (["gpu-1", "gpu-2"], ["public-gpu"])


def test_form__has_a_default_pool_that_exists(pools: dict[str, Pool]) -> None:
    dedicated = {"dedicated-example": pools["dedicated-example"]}
    assert fields(form(batch_service, dedicated))["resource_pool"]["default"] == "dedicated-example"
    assert fields(form(batch_service, {}))["resource_pool"]["enum"] == []


def test_form__has_a_title_and_a_description_for_each_field_and_no_tab_for_an_empty_one(pools: dict[str, Pool]) -> None:
    for name, shown in fields(form(batch_service, pools)).items():
        assert shown.get("title") and shown.get("description"), name
        if name != "schedule":
            assert {"type": "null"} not in shown.get("anyOf", []), name


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"description": "words", "flavor": "cpu-1", "instances": 3, "environment": {"A": "b"}, "priority": 3},
        {"schedule": {"cron": "0 2 * * *"}, "error_threshold": 0.5, "rows_per_request": "auto"},
        {"failed_of": f"/out/infer-result-{UUID(int=1)}.manifest", "merge": True, "deadline_minutes": 0.5},
        {"schedule": {"interval_minutes": 5}, "mapping": {"type": "object"}, "runtime_log_output": True},
    ],
)  # fmt: skip
def test_parameters__of_a_service_fit_the_form(given: dict[str, Any], pools: dict[str, Pool]) -> None:
    service = BatchService(name="digits", **PATHS, **given)
    for flow in (batch_service, deploy_service):
        schema = form(flow, pools)
        jsonschema.validate(parameters_of(service), schema)
        for wrong in ({"resource_pool": "nowhere"}, {"flavor": "none"}, {"instances": 0}, {"priority": 4}):
            parameters = parameters_of(service)
            parameters["service"] |= wrong
            with pytest.raises(jsonschema.ValidationError):
                jsonschema.validate(parameters, schema)
    assert BatchService.model_validate(parameters_of(service)["service"]) == service
