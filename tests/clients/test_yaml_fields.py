"""YAML files, `--set`, the form and Python: a text is what was written, or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.services.specification import read_specification
from tasks.clients.pool_files import read_pools
from tasks.clients.yaml_fields import load
from tasks.domain.errors import SpecificationError
from tasks.domain.pool import Pool
from tasks.domain.service import BatchService
from tasks.domain.specification import require

LEAST = {"name": "a", "model": "m", "input_path": "s3://b/in", "output_path": "s3://b/out"}
ODD = [
    "1.10", "1.0", "0x1F", "0o17", "012", "1_000", "1:30", "1:30:00", ".5", "5.", "+5", "1e3", "1E400", ".inf", ".nan",
    "-0", "00", "yes", "no", "on", "off", "y", "N", "true", "True", "FALSE", "2026-01-01", "2026-02-31",
    "2026-01-01 10:00:00", "2026-01-01T10:00:00Z", "=", "9" * 5000, "0b1", "1__0", "190:20:30",
]  # fmt: skip
NULLS = ["null", "~", "Null", "NULL"]


def in_file(tmp_path: Path, field: str, written: str) -> Any:
    """The value of a field, written so in a YAML file."""
    path = tmp_path / "service.yaml"
    path.write_text(f"{field}: {written}\n")
    return read_specification(path)[field]


def by_call(tmp_path: Path, field: str, written: str) -> Any:
    """The value of a field, set so by the call."""
    path = tmp_path / "service.yaml"
    path.write_text("{}")
    return read_specification(path, [f"{field}={written}"])[field]


@pytest.mark.parametrize("written", ODD)
@pytest.mark.parametrize("field", ["model_version", "description", "resource_pool", "flavor", "request_path", "name"])
def test_text__of_a_field_stays_as_it_is_written(tmp_path: Path, field: str, written: str) -> None:
    assert in_file(tmp_path, field, written) == by_call(tmp_path, field, written) == written
    path = tmp_path / "service.yaml"
    path.write_text(json.dumps({field: written}))
    assert read_specification(path)[field] == written


@pytest.mark.parametrize("field", ["input_path", "output_path", "failed_of", "model_config"])
@pytest.mark.parametrize("written", ["2026-01-01", "1.10", "012", "no"])
def test_text__of_a_path_stays_as_it_is_written(tmp_path: Path, field: str, written: str) -> None:
    assert in_file(tmp_path, field, written) == f"{tmp_path}/{written}"


@pytest.mark.parametrize("written", [*ODD, *NULLS])
def test_text__of_a_variable_stays_as_it_is_written(tmp_path: Path, written: str) -> None:
    expected = {"A": written}
    assert in_file(tmp_path, "environment", f"{{A: {written}}}") == expected
    assert by_call(tmp_path, "environment", f"{{A: {written}}}") == expected
    path = tmp_path / "service.yaml"
    path.write_text(f"environment:\n  A: {written}\n")
    assert read_specification(path, [f"environment.B={written}"])["environment"] == {"A": written, "B": written}
    assert require({**LEAST, "environment": expected}).environment == expected


@pytest.mark.parametrize(
    "written", ["a # b", "a: b", "[x", "*x", "&x y", "!x y", "%x", "@x", "`x`", "- x", "{x", "|", ">", "", " x "]
)
def test_text__that_is_set_by_the_call_is_no_yaml(tmp_path: Path, written: str) -> None:
    path = tmp_path / "service.yaml"
    path.write_text("{}")
    assert read_specification(path, [f"environment.A={written}"])["environment"] == {"A": written}
    assert by_call(tmp_path, "description", written) == written


def test_text__may_stand_in_quotes(tmp_path: Path) -> None:
    for written in ('"1.10"', "'1.10'"):
        assert in_file(tmp_path, "model_version", written) == by_call(tmp_path, "model_version", written) == "1.10"


@pytest.mark.parametrize("field", ["model_version", "flavor", "request_path", "failed_of", "model_config", "mapping"])
@pytest.mark.parametrize("written", [*NULLS, ""])
def test_null__is_the_default_where_there_is_one(tmp_path: Path, field: str, written: str) -> None:
    assert in_file(tmp_path, field, written) is None
    assert by_call(tmp_path, field, written) in (None, "")  # what is left empty is the default, too


def test_names__of_variables_and_of_a_requests_fields_are_texts(tmp_path: Path) -> None:
    path = tmp_path / "service.yaml"
    path.write_text(
        "environment: {NO: 1, Y: 2, ON: 3}\n"
        "mapping: {type: object, properties: {no: {type: number, index: 0}, 1.10: {type: string, index: 1},"
        " ~: {type: string, default: 2026-01-01}}}\n"
    )
    fields = read_specification(path)
    assert fields["environment"] == {"NO": "1", "Y": "2", "ON": "3"}
    leaves = fields["mapping"]["properties"]
    assert [*leaves] == ["no", "1.10", "~"]
    assert leaves["no"]["index"] == 0 and leaves["~"]["default"] == "2026-01-01"


def test_values__that_are_merged_are_texts_too(tmp_path: Path) -> None:
    path = tmp_path / "service.yaml"
    path.write_text("environment:\n  <<: {A: 1.10}\n  B: &x 1.20\n  C: *x\n")
    assert read_specification(path)["environment"] == {"A": "1.10", "B": "1.20", "C": "1.20"}


@pytest.mark.parametrize(
    ("field", "written"),
    [("instances", text) for text in ("0x2", "0o2", "1:30", "yes", "2026-01-01")]
    + [("timeout_minutes", text) for text in ("1:30", "0x10")]
    + [("runtime_log_output", "2026-01-01"), ("rows_per_request", "0x10"), ("rows_per_request", "1_0")],
)  # fmt: skip
def test_number__is_never_what_only_yaml_reads_so(tmp_path: Path, field: str, written: str) -> None:
    for read in (in_file, by_call):
        with pytest.raises(SpecificationError, match=field):
            require({**LEAST, field: read(tmp_path, field, written)})


@pytest.mark.parametrize(
    ("field", "written", "value"),
    [("instances", "12", 12), ("timeout_minutes", "4.5", 4.5), ("timeout_minutes", "1e1", 10),
     ("merge", "false", False),
     ("error_threshold", ".5", 0.5), ("rows_per_request", "auto", "auto"), ("rows_per_request", "10", 10),
     ("error_threshold", "null", None), ("runtime_log_output", "yes", True),
     ("csv_header", "absent", "absent")],
)  # fmt: skip
def test_number__is_read_as_usual(tmp_path: Path, field: str, written: str, value: Any) -> None:
    for read in (in_file, by_call):
        assert getattr(require({**LEAST, field: read(tmp_path, field, written)}), field) == value


def test_python_and_form__take_a_text_or_refuse() -> None:
    for value in (1.10, True, None, b"x"):
        with pytest.raises(SpecificationError, match="environment"):
            require({**LEAST, "environment": {"A": value}})
    with pytest.raises(SpecificationError, match="model_version"):
        require({**LEAST, "model_version": 1.10})


def test_pool__keeps_its_texts(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "name: 012\nkind: docker\nimage: 1.10\ncontact: no\nnetwork: 0x1F\n"
        "flavors: [{name: 1.10, cpu: 1, memory_gb: 2}, {name: 2026-01-01, cpu: .5, memory_gb: 2}]\n"
        "environment: {A: 1.10, B: ~, NO: yes}\nvolumes: [1:30]\n"
    )
    (pool,) = read_pools(tmp_path).values()
    assert (pool.name, pool.image, pool.contact, pool.network) == ("012", "1.10", "no", "0x1F")
    assert [flavor.name for flavor in pool.flavors] == ["1.10", "2026-01-01"]
    assert pool.environment == {"A": "1.10", "B": "~", "NO": "yes"}
    assert pool.volumes == ("1:30",)


@pytest.mark.parametrize("text", ["a: [1", "a: !!python/object:os.system x", "a: *nowhere", "a: 2026-02-31"])
def test_document__that_is_no_yaml_is_refused(text: str) -> None:
    for kind in (BatchService, Pool):
        with pytest.raises((yaml.YAMLError, ValueError)):
            load(text, kind)
    assert load("", Pool) is None
