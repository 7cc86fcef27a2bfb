"""The service specification, field by field."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from pydantic import ValidationError

from tasks.domain.errors import Problem, SpecificationError
from tasks.domain.service import BatchService, default_name
from tasks.domain.specification import parse_service, require

MANIFEST = "/out/infer-result-0b1e4ab0-6f0c-4a1c-9a53-3a2b5c7d9e11.manifest"


LEAST = {"model": "iris", "input_path": "/in", "output_path": "/out"}


def problems(**fields: Any) -> list[Problem]:
    service, _, found = parse_service({**LEAST, **fields})
    assert (service is None) == bool(found)
    return found


def the_problem(**fields: Any) -> Problem:
    (problem,) = problems(**fields)
    return problem


def test_service__needs_a_model_an_input_and_an_output_and_nothing_else() -> None:
    service = require(LEAST)
    assert service.model_dump(exclude={"name"}) == {
        "description": "", "resource_pool": "public-cpu", "model_source": "my-models", "model": "iris",
        "model_version": None, "input_path": "/in", "request_path": None, "mapping": None, "output_path": "/out",
        "flavor": None, "instances": 1, "environment": {}, "timeout_minutes": 20, "runtime_log_output": False,
        "schedule": None, "error_threshold": None, "deadline_minutes": None, "failed_of": None, "merge": False,
        "result_folder": "infer-result-{task_id}", "max_concurrency": None,
        "rows_per_request": 1, "csv_header": "absent", "empty_cells": "refuse", "headers": {},
        "request_timeout_seconds": None, "outage_minutes": 15, "loosen": False, "priority": 1, "model_config": None,
    }  # fmt: skip


def test_service__is_called_service_and_four_hex_digits_by_default() -> None:
    found = {require(LEAST).name for _ in range(20)}
    assert all(re.fullmatch(r"service-[0-9a-f]{4}", name) for name in found)
    assert len(found) > 1
    assert re.fullmatch(r"service-[0-9a-f]{4}", default_name())


@pytest.mark.parametrize("field", ["model", "input_path", "output_path"])
def test_service__says_which_needed_field_is_missing(field: str) -> None:
    _, _, (problem,) = parse_service({name: value for name, value in LEAST.items() if name != field})
    assert str(problem) == f"{field}: is missing"


GOOD = [
    ("name", "a"), ("name", "Z" * 64), ("name", "service-bc0d"), ("name", "a_B-9"), ("name", "-"),
    ("description", ""), ("description", "x" * 100), ("description", "日" * 100), ("description", "a, b; c. (d) 5 % #"),
    ("resource_pool", "gpu-pool"),
    ("model_source", "my-models"), ("model_source", "my-subscriptions"),
    ("model", "iris"), ("model", "/models/iris"), ("model", "s3://b/iris"), ("model", "http://127.0.0.1:8080"),
    ("model_version", "0.0.1"), ("model_version", None), ("model_version", "1.10"),
    *[("input_path", path) for path in ("/in", "in/x.manifest", "file:///in", "s3://b", "s3://b/in/", "obs://b/1.csv")],
    *[("output_path", path) for path in ("/out", "out", "file:///out", "s3://b/out", "obs://b/out/{task_id}",
                                          "/out/{name}/{scheduled_time:%Y-%m-%d}", "{task_id}")],
    ("request_path", "/predict"), ("mapping", {"type": "object"}), ("flavor", "cpu-2"),
    ("instances", 1), ("instances", 128),
    ("environment", {}), ("environment", {"A": "", "_b9": "x=y", "PORT": "{{ prefect.blocks.secret.port }}"}),
    ("timeout_minutes", 3), ("timeout_minutes", 120), ("timeout_minutes", 4.5),
    ("runtime_log_output", True), ("runtime_log_output", False),
    ("error_threshold", None), ("error_threshold", 0), ("error_threshold", 0.05), ("error_threshold", 1),
    ("error_threshold", 1000), ("deadline_minutes", None), ("deadline_minutes", 0.5), ("deadline_minutes", 1440),
    ("failed_of", None), ("failed_of", MANIFEST), ("failed_of", f"s3://bucket{MANIFEST}"), ("merge", False),
    ("result_folder", "infer-result"), ("result_folder", "infer-result-{task_id}"),
    ("max_concurrency", 1), ("max_concurrency", 1024), ("max_concurrency", None),
    ("rows_per_request", 1), ("rows_per_request", 10_000), ("rows_per_request", "auto"),
    ("csv_header", "absent"), ("csv_header", "present"),
    ("priority", 1), ("priority", 3),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value"), GOOD)
def test_service__takes_every_value_that_the_contract_allows(field: str, value: Any) -> None:
    service = require({**LEAST, field: value})
    assert getattr(service, field) == value


BAD = [
    *[("name", name, "") for name in ("", "x" * 65, "a b", "a.b", "größe", "a/b", "a\n", "日", None, 7.5)],
    ("description", "x" * 101, "100 characters"),
    *[("description", f"a{sign}b", f"none of ! < > = & \" ' (it has {sign})") for sign in "!<>=&\"'"],
    ("resource_pool", "", "at least 1"), ("model", "", "at least 1"),
    ("model_source", "your-models", "'my-models' or 'my-subscriptions'"),
    ("model_version", 1.0, "should be text: write it in quotes"),
    ("input_path", "", "an address is needed"), ("input_path", "gs://b/k", "gs:// is not known"),
    ("input_path", "s3://", "bucket is missing"), ("input_path", "https://h/x.csv", "share links stand in a manifest"),
    ("output_path", " ", "an address is needed"), ("output_path", "https://h/x", "local path, file://, s3:// or obs://"),
    ("output_path", "/out/{taskid}",
     "{taskid} is not known; replaced are {task_id}, {name} and {scheduled_time:%Y-%m-%d}"),
    ("output_path", "file://out", "file:///folder/file"),
    ("mapping", [], "dictionary"), ("mapping", "{}", "dictionary"),
    ("instances", 0, "greater than or equal to 1"), ("instances", 129, "less than or equal to 128"),
    ("instances", 1.5, "integer"), ("instances", "many", "integer"),
    ("timeout_minutes", 2.99, "greater than or equal to 3"), ("timeout_minutes", 121, "less than or equal to 120"),
    ("timeout_minutes", float("nan"), ""), ("timeout_minutes", float("inf"), ""),
    ("runtime_log_output", "perhaps", "boolean"),
    ("failed_of", "/out/input.manifest", "first part of an output manifest"), ("failed_of", 5, "valid string"),
    ("failed_of", MANIFEST.replace(".manifest", "_1.manifest"), "first part of an output manifest"),
    ("failed_of", f"https://host{MANIFEST}", "share links stand in a manifest"), ("merge", True, "needs failed_of"),
    ("deadline_minutes", 0, "greater than 0"), ("deadline_minutes", float("inf"), "finite"),
    ("error_threshold", -0.1, "greater than or equal to 0"), ("error_threshold", 1.5, "whole number of items"),
    ("error_threshold", float("inf"), "finite"), ("error_threshold", float("nan"), ""),
    ("result_folder", "results", "'infer-result-{task_id}' or 'infer-result'"),
    ("max_concurrency", 0, "greater than or equal to 1"), ("max_concurrency", 1025, "less than or equal to 1024"),
    *[("rows_per_request", value, "1 to 10000, or auto")
      for value in (0, -1, 10_001, "all", 1.5, "", None, True, [], float("inf"))],
    ("csv_header", "yes", "'absent' or 'present'"),
    ("priority", 0, "greater than or equal to 1"), ("priority", 4, "less than or equal to 3"),
    ("schedule", {}, "either cron or interval_minutes"),
    ("schedule", {"cron": "0 2 * * *", "interval_minutes": 5}, "either cron or interval_minutes"),
    ("instance", 2, "is not a known field"), ("inputPath", "/in", "is not a known field"),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value", "expected"), BAD)
def test_service__refuses_what_the_contract_does_not_allow(field: str, value: Any, expected: str) -> None:
    problem = the_problem(**{field: value})
    assert problem.field == field
    assert expected in problem.expected
    if value is not None and not isinstance(value, (list, dict)):
        assert repr(str(value))[:100] in str(problem)


@pytest.mark.parametrize(
    ("schedule", "field"),
    [({"interval_minutes": 0}, "interval_minutes"), ({"interval_minutes": -1}, "interval_minutes"),
     ({"interval_minutes": float("inf")}, "interval_minutes"), ({"interval_minutes": 1e15}, "interval_minutes"),
     ({"interval_minutes": 1e-9}, "interval_minutes"), ({"cron": "0 2 * * *", "every": 1}, "every"),
     *[({"cron": line}, "cron") for line in ("0 2 * *", "", "99 3 * * *", "*/0 * * * *", "0 2 * * 8", "a b c d e")],
     *[({"cron": "0 2 * * *", "timezone": zone}, "timezone") for zone in ("Mars/Base", "posix/Europe/Berlin", "")]],
)  # fmt: skip
def test_service__names_the_field_inside_a_wrong_schedule(schedule: dict[str, Any], field: str) -> None:
    assert the_problem(schedule=schedule).field == f"schedule.{field}"


@pytest.mark.parametrize(
    "schedule",
    [
        {"cron": "0 2 * * *"},
        {"interval_minutes": 0.5},
        {"cron": "*/5 * * * 1-5", "timezone": "Europe/Berlin"},
        {"cron": "0,30 8-18/2 * JAN-Mar mon#1"},
    ],
)
def test_service__takes_a_cron_line_or_an_interval(schedule: dict[str, Any]) -> None:
    found = require({**LEAST, "schedule": schedule}).schedule
    assert found is not None
    assert found.model_dump(exclude_none=True) == {"timezone": "UTC", **schedule}


# Several problems


def test_service__tells_every_problem_in_one_answer() -> None:
    with pytest.raises(SpecificationError) as caught:
        require(
            {"name": "a b", "description": "x" * 101, "input_path": "gs://b", "instances": 0, "timeout_minutes": 500,
             "priority": 9, "colour": "red", "environment": {"9": "x"}, "rows_per_request": "all",
             "output_path": "/out",
             "result_folder": "infer-result", "schedule": {"interval_minutes": 5}}
        )  # fmt: skip
    assert {problem.field for problem in caught.value.problems} == {
        "name", "description", "model", "input_path", "instances", "timeout_minutes", "priority", "colour",
        "environment", "rows_per_request", "result_folder",
    }  # fmt: skip
    text = str(caught.value)
    assert text.startswith("The specification is refused (11 problems):\n  - ")
    assert text.count("\n") == 11
    assert "instances = '0': should be greater than or equal to 1" in text


def test_service__what_is_right_is_kept_beside_what_is_wrong_so_that_it_can_be_checked() -> None:
    service, right, found = parse_service({**LEAST, "instances": 0, "colour": "red", "flavor": "cpu-2"})
    assert service is None
    assert [problem.field for problem in found] == ["instances", "colour"]
    assert "colour" not in right
    assert right["instances"] == 1  # the default stands in
    assert right["flavor"] == "cpu-2"
    assert right["resource_pool"] == "public-cpu"
    assert right["input_path"] == "/in"


def test_service__the_older_layout_of_a_scheduled_service_needs_a_word_that_changes() -> None:
    scheduled = {"result_folder": "infer-result", "schedule": {"cron": "0 2 * * *"}}
    for output in ("/out", "/out/{name}"):
        problem = the_problem(**scheduled, output_path=output)
        assert "should hold {task_id} or {scheduled_time}" in problem.expected
    for output in ("/out/{task_id}", "/out/{scheduled_time:%Y-%m-%d}", "/out/{scheduled_time}"):
        assert problems(**scheduled, output_path=output) == []
    assert problems(result_folder="infer-result") == []
    assert problems(schedule={"cron": "0 2 * * *"}) == []


# The model's configuration


def test_service__a_model_configuration_is_given_under_its_alias_as_a_path_or_as_text_or_as_fields() -> None:
    assert require({**LEAST, "model_config": "config.json"}).running_config == "config.json"
    assert require({**LEAST, "model_config": '{"model_type": "Image"}'}).running_config == '{"model_type": "Image"}'
    held = require({**LEAST, "model_config": {"model_type": "Image", "apis": []}}).running_config
    assert held is not None
    assert json.loads(held) == {"model_type": "Image", "apis": []}
    assert BatchService(**LEAST, running_config="config.json").running_config == "config.json"


@pytest.mark.parametrize("value", [7, ["config.json"], True])
def test_service__a_model_configuration_is_nothing_else(value: Any) -> None:
    assert the_problem(model_config=value).field == "model_config"


# Round trips


@pytest.mark.parametrize(("field", "value"), [*GOOD, ("schedule", {"cron": "0 2 * * *"}), ("model_config", {"a": [1]})])
def test_service__json_and_back_is_the_same_service(field: str, value: Any) -> None:
    service = require({**LEAST, field: value})
    dumped = service.model_dump(mode="json")
    assert BatchService.model_validate(json.loads(json.dumps(dumped))) == service
    assert BatchService.model_validate_json(service.model_dump_json()) == service
    assert "running_config" not in dumped


def test_service__cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        require(LEAST).name = "other"  # type: ignore[misc]


def test_service__every_field_has_a_title_and_a_help_for_the_form() -> None:
    schema = BatchService.model_json_schema()
    assert list(schema["properties"]) == [
        "name", "description", "resource_pool", "model_source", "model", "model_version", "input_path", "request_path",
        "mapping", "output_path", "flavor", "instances", "environment", "timeout_minutes", "runtime_log_output",
        "schedule", "error_threshold", "deadline_minutes", "failed_of", "merge", "result_folder", "max_concurrency",
        "rows_per_request", "csv_header", "empty_cells", "headers", "request_timeout_seconds", "outage_minutes",
        "loosen", "priority", "model_config",
    ]  # fmt: skip
    for field in schema["properties"].values():
        assert field["title"]
        assert field["description"]
    assert sorted(schema["required"]) == ["input_path", "model", "output_path"]


def test_environment__tells_all_that_is_wrong_with_its_names_and_values() -> None:
    problem = the_problem(environment={"1x": "y", "A": None, "B": 1.5, "C": "x\0", "D": "right"})
    assert problem.field == "environment"
    for part in ("'1x' is not a variable's name", "the value of A", "the value of B", "the value of C"):
        assert part in problem.expected
    assert "D" not in problem.expected.replace("Digits", "")


def test_service__may_be_of_the_failed_items_of_an_earlier_run() -> None:
    service = require({**LEAST, "failed_of": MANIFEST, "merge": True})
    assert (service.failed_of, service.merge) == (MANIFEST, True)
    assert require({**LEAST, "failed_of": ""}).failed_of is None  # as forms give it
