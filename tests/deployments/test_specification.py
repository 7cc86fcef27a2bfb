"""Specification files and what the call changes in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deployments.services.specification import read_specification
from tasks.domain.errors import SpecificationError
from tasks.domain.specification import require

LEAST = "model: iris\ninput_path: s3://b/in\noutput_path: s3://b/out\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "services"
    made.mkdir()
    return made


def read(folder: Path, text: str | bytes, *overrides: str) -> dict[str, Any]:
    path = folder / "service.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_specification(path, overrides)


def refused(folder: Path, text: str | bytes, *overrides: str) -> str:
    with pytest.raises(SpecificationError) as caught:
        read(folder, text, *overrides)
    assert len(caught.value.problems) == 1
    return str(caught.value)


def test_specification__holds_the_fields_of_the_file(folder: Path) -> None:
    fields = read(folder, LEAST + "instances: 2\nenvironment:\n  A: x\nschedule: {cron: 0 2 * * *}\n")
    service = require(fields)
    assert service.instances == 2
    assert service.environment == {"A": "x"}
    assert service.schedule is not None
    assert service.schedule.cron == "0 2 * * *"


def test_specification__may_be_json(folder: Path) -> None:
    assert read(folder, '{"model": "iris", "instances": 2}') == {"model": "iris", "instances": 2}


def test_specification__may_hold_any_script_and_a_byte_order_mark(folder: Path) -> None:
    assert read(folder, b"\xef\xbb\xbf" + "description: größe 日本\n".encode()) == {"description": "größe 日本"}


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("input_path", "in", "{folder}/in"), ("input_path", "./in/", "{folder}/in"),
        ("input_path", "../in", "{above}/in"),
        ("input_path", "/in", "/in"), ("input_path", "~/in", "~/in"), ("input_path", "s3://b/in", "s3://b/in"),
        ("failed_of", "out/x.manifest", "{folder}/out/x.manifest"), ("failed_of", "s3://b/x.manifest", "s3://b/x.manifest"),
        ("input_path", "file:///in", "file:///in"), ("input_path", "x.manifest", "{folder}/x.manifest"),
        ("output_path", "out/{task_id}", "{folder}/out/{task_id}"), ("output_path", "{task_id}", "{folder}/{task_id}"),
        ("output_path", "{name}/out", "{folder}/{name}/out"), ("output_path", "obs://b/{task_id}", "obs://b/{task_id}"),
        ("model", "iris", "iris"), ("model", "iris-1.0", "iris-1.0"), ("model", "./iris", "{folder}/iris"),
        ("model", "models/iris", "{folder}/models/iris"), ("model", ".", "{folder}"), ("model", "..", "{above}"),
        ("model", "http://127.0.0.1:8080/x", "http://127.0.0.1:8080/x"), ("model", "/models/iris", "/models/iris"),
        ("model_config", "config.json", "{folder}/config.json"), ("model_config", '{"a": 1}', '{"a": 1}'),
        ("model_config", '  {"a": 1}', '  {"a": 1}'), ("model_config", '\n{"a": 1}\n', '\n{"a": 1}\n'),
        ("description", "in", "in"), ("flavor", "./x", "./x"), ("input_path", "", ""), ("input_path", " ", " "),
    ],
)  # fmt: skip
def test_specification__relative_paths_are_taken_from_the_files_folder(
    folder: Path, field: str, value: str, expected: str
) -> None:
    fields = read(folder, json.dumps({field: value}))
    assert fields == {field: expected.replace("{folder}", str(folder)).replace("{above}", str(folder.parent))}


def test_specification__relative_paths_of_the_call_are_taken_from_the_working_directory(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    fields = read(folder, LEAST, "input_path=in", "output_path={task_id}/x", "model=./iris", "model_config=c.json")
    assert fields == {
        "input_path": f"{tmp_path}/in", "output_path": f"{tmp_path}/{{task_id}}/x", "model": f"{tmp_path}/iris",
        "model_config": f"{tmp_path}/c.json",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("instances=3", {"instances": 3}), ("instances = 3", {"instances": 3}), ("name=x", {"name": "x"}),
        ("runtime_log_output=true", {"runtime_log_output": True}), ("description=", {"description": ""}),
        ("flavor=null", {"flavor": None}), ("description=a=b", {"description": "a=b"}),
        ("rows_per_request=auto", {"rows_per_request": "auto"}), ("error_threshold=0.5", {"error_threshold": 0.5}),
        ("environment={A: x, B: y}", {"environment": {"A": "x", "B": "y"}}),
        ("environment.A=x", {"environment": {"A": "x"}}),
        ("schedule.cron=0 2 * * *", {"schedule": {"cron": "0 2 * * *"}}),
        ("mapping.a.b=1", {"mapping": {"a": {"b": 1}}}),
        ("description=a: b: c", {"description": "a: b: c"}), ("description=[x", {"description": "[x"}),
        ("model_version=2026-02-31", {"model_version": "2026-02-31"}), ("description=\"a", {"description": '"a'}),
        ("model=s3://b/m", {"model": "s3://b/m"}), ("model_config={\"a\": 1}", {"model_config": {"a": 1}}),
    ],
)  # fmt: skip
def test_specification__the_call_sets_fields(folder: Path, override: str, expected: dict[str, Any]) -> None:
    assert read(folder, "{}", override) == expected


def test_specification__the_call_replaces_and_adds_and_the_last_one_wins(folder: Path) -> None:
    text = "instances: 1\nenvironment: {A: x}\n"
    fields = read(folder, text, "instances=2", "environment.B=y", "instances=3", "environment.A=z")
    assert fields == {"instances": 3, "environment": {"A": "z", "B": "y"}}


@pytest.mark.parametrize("override", ["instances", "=3", " =3", ""])
def test_specification__says_how_a_field_is_set(folder: Path, override: str) -> None:
    assert "should be field=value" in refused(folder, LEAST, override)


def test_specification__says_that_a_value_holds_no_fields(folder: Path) -> None:
    assert "model holds no fields" in refused(folder, LEAST, "model.name=x")


@pytest.mark.parametrize(
    "text",
    ["a: [1", "a: b: c", "\tx: 1", "a: 'x", b"\xff\xfe\xfa", b"name: caf\xe9\n", "a: *nowhere",
     "a: !!python/object:os.system x",
     "a: 2026-02-31", "x: " + "9" * 5000, "[" * 1500, b"a: \x00"],
)  # fmt: skip
def test_specification__says_that_the_file_should_be_yaml(folder: Path, text: str | bytes) -> None:
    message = refused(folder, text)
    assert "should be a YAML file" in message
    assert str(folder / "service.yaml")[-20:] in message


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just text", "7", "1: x\n", "null", "~: x"])
def test_specification__says_that_the_file_should_hold_fields(folder: Path, text: str) -> None:
    assert "should hold fields: name: value" in refused(folder, text)


def test_specification__says_that_there_is_no_such_file(folder: Path) -> None:
    with pytest.raises(SpecificationError, match="there is no such file"):
        read_specification(folder / "nothing.yaml")


def test_specification__says_that_a_folder_is_no_file(folder: Path) -> None:
    with pytest.raises(SpecificationError, match="is a folder; a YAML file is needed"):
        read_specification(folder)


def test_specification__says_why_a_file_cannot_be_read(folder: Path) -> None:
    (folder / "file").write_text("")
    with pytest.raises(SpecificationError, match="cannot be read: Not a directory"):
        read_specification(folder / "file" / "service.yaml")
