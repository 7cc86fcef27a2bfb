"""What of a run must be the same when it is tried again, and what may change."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.domain.fingerprint import Digest, Fingerprint, described, fingerprint, listed, shortened, together
from tasks.domain.package import PackageConfig
from tasks.domain.pool import Flavor
from tasks.domain.run import Run
from tasks.domain.service import BatchService

RULE = {"type": "object", "properties": {"n": {"type": "number", "index": 0}}}


def made(files: str = "1 files", code: str = "run.sh", manifest: str = "9 bytes", **others: Any) -> Fingerprint:
    own = {name: others.pop(name) for name in list(others) if name in Run.model_fields}
    fields = {"name": "tested", "model": "iris", "input_path": "/in", "output_path": "/out", **others}
    run = {
        "task_id": "x", "serving": "boot-file", "package": "/models/iris", "model_version": "0.0.1",
        "config": PackageConfig(model_type="Image"), "request_path": "/", "rule": RULE, "output": "/out",
        "flavor": Flavor(name="small", cpu=1, memory_gb=1), "service": BatchService(**fields), **own,
    }  # fmt: skip
    return fingerprint(Run(**run), files, code, manifest)


@pytest.mark.parametrize(
    ("changed", "field", "was", "now"),
    [
        ({"model": "digits"}, "model", "my-models/iris", "my-models/digits"),
        ({"model_source": "my-subscriptions"}, "model", "my-models/iris", "my-subscriptions/iris"),
        ({"model_version": "0.0.2"}, "model_version", "0.0.1", "0.0.2"),
        ({"files": "2 files"}, "package files", "1 files", "2 files"),
        ({"code": "run.sh, other"}, "package code", "run.sh", "run.sh, other"),
        ({"request_path": "/other"}, "request_path", "/", "/other"),
        ({"rule": None}, "mapping", '"index": 0', "none"),
        ({"rule": {**RULE, "properties": {"n": {"type": "number", "index": 1}}}}, "mapping", ": 0", ": 1"),
        ({"csv_header": "present"}, "csv_header", "absent", "present"),
        ({"input_path": "/other"}, "input_path", "/in", "/other"),
        ({"manifest": "8 bytes"}, "input manifest", "9 bytes", "8 bytes"),
        ({"manifest": ""}, "input manifest", "9 bytes", "none"),
        ({"output": "/other"}, "output_path", "/out", "/other"),
        ({"result_folder": "infer-result"}, "result_folder", "infer-result-{task_id}", "infer-result"),
        ({"config": PackageConfig(model_type="PyTorch")}, "config.json", "bytes, sha256", "bytes, sha256"),
    ],
)
def test_change__of_what_decides_the_results_is_named_with_what_was_and_what_is(
    changed: dict[str, Any], field: str, was: str, now: str
) -> None:
    problems = made().changes(made(**changed), "the-run")
    assert [one.field for one in problems] == ["run the-run", field]
    assert "cannot be resumed" in str(problems[0]) and "start a new run" in str(problems[0])
    assert was in problems[1].expected and now in str(problems[1].value)


@pytest.mark.parametrize(
    "changed",
    [
        {"instances": 7}, {"flavor": Flavor(name="large", cpu=8, memory_gb=8)}, {"resource_pool": "other"},
        {"environment": {"A": "1"}}, {"timeout_minutes": 3}, {"error_threshold": 0.5}, {"max_concurrency": 3},
        {"rows_per_request": 10}, {"description": "other"}, {"priority": 2}, {"runtime_log_output": True},
    ],
)  # fmt: skip
def test_change__of_how_fast_and_where_a_run_is_done_is_allowed(changed: dict[str, Any]) -> None:
    assert made().changes(made(**changed), "the-run") == []


def test_change__every_one_is_told() -> None:
    problems = made().changes(made(csv_header="present", model_version="2", manifest="other"), "the-run")
    assert {one.field for one in problems} == {"run the-run", "csv_header", "model_version", "input manifest"}


def test_change__of_a_field_that_only_one_side_tells_is_none() -> None:
    assert Fingerprint(fields={}).changes(made(), "x") == []
    assert Fingerprint(fields={"of another version": "x"}).changes(made(), "x") == []


def test_files__of_a_package_count_by_name_and_size_without_what_servers_write() -> None:
    files = [("run.sh", 10), ("model/weights.bin", 100)]
    written = [(".cache/x", 1), ("__pycache__/a.pyc", 2), ("b.pyc", 3), ("server.log", 4), ("run.pid", 5)]
    assert listed(files) == listed([*reversed(files), *written])
    assert listed(files).startswith("2 files, 110 bytes, sha256 ")
    others = [[("run.sh", 11), files[1]], [("run.sh2", 10), files[1]], files[:1]]
    assert len({listed(one) for one in [files, *others]}) == 4


def test_code__counts_by_content_although_its_size_is_the_same() -> None:
    assert together({}) == ""
    assert together({"run.sh": b"a"}) != together({"run.sh": b"b"})
    assert together({"b": b"1", "a": b"2"}) == together({"a": b"2", "b": b"1"})
    assert together({"b": b"1", "a": b"2"}).startswith("a, b, sha256 ")


def test_text__that_is_long_is_its_beginning_and_its_digest() -> None:
    assert shortened("short") == "short"
    assert len(shortened("x" * 10_000)) < 200
    assert shortened("x" * 10_000 + "a") != shortened("x" * 10_000 + "b")


@given(st.lists(st.binary()))
def test_digest__of_pieces_describes_the_whole(pieces: list[bytes]) -> None:
    digest = Digest()
    for piece in pieces:
        digest.add(piece)
    assert str(digest) == described(b"".join(pieces))


def test_fingerprint__takes_the_manifest_that_was_planned() -> None:
    assert made(manifest="").with_manifest("9 bytes") == made(manifest="9 bytes")
