"""``thresher try``: a service's first items or rows, sent to one instance; nothing is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml


@pytest.fixture
def spec(tmp_path: Path) -> Any:
    """Writes a specification of these fields."""

    def write(**fields: Any) -> Path:
        path = tmp_path / "spec.yaml"
        path.write_text(yaml.safe_dump({"name": "tried", "input_path": "in", "output_path": "out", **fields}))
        return path

    return write


def left(folder: Path) -> list[str]:
    """Files in the output folder."""
    return [str(path) for path in (folder / "out").rglob("*")]


def test_try__sends_the_first_files_and_writes_nothing(
    command: Any, package: Any, spec: Any, tmp_path: Path, write_files: Any
) -> None:
    package()
    write_files(tmp_path / "in", {"1.jpg": "one", "2.jpg": "two FAIL:404", "3.jpg": "three"})
    path = spec(model="./package", request_path="/")
    done = command("try", path, "-n", "1", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [one["item"].rpartition("/")[2] for one in found["exchanges"]] == ["1.jpg"]
    assert 'filename="1.jpg"' in found["exchanges"][0]["body"] and found["exchanges"][0]["status"] == 200
    done = command("try", path)
    assert done.returncode == 1 and done.stdout.count("\nPOST /\n") == 3
    assert "answer    HTTP 404" in done.stdout and "The model answered HTTP 404." in done.stderr
    assert left(tmp_path) == []


def test_try__sends_the_first_rows_to_a_server_that_runs(
    command: Any, running: dict[str, str], spec: Any, tmp_path: Path, write_files: Any
) -> None:
    write_files(tmp_path / "in", {"1.csv": "1,2\nx,3\n", "2.csv": "5,6\n7,8\n"})
    path = spec(**running, request_path="/iris")
    done = command("try", path, "--items", "3", "--json")
    assert done.returncode == 1, done.stderr
    bodies = [one["body"] for one in json.loads(done.stdout)["exchanges"] if one["body"]]
    assert bodies == [
        '{"data":{"req_data":[{"input_1":1,"input_2":2}]}}', '{"data":{"req_data":[{"input_1":5,"input_2":6}]}}'
    ]  # fmt: skip
    assert "in/1.csv, row 2: line 2, column 0" in done.stderr
    assert left(tmp_path) == []


def test_try__refuses_what_a_run_would_refuse(command: Any, running: dict[str, str], spec: Any, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    done = command("try", spec(**running, request_path="/iris"))
    assert (done.returncode, done.stdout) == (2, "") and "input_path" in done.stderr
    done = command("try", spec(**running, request_path="/iris"), "-n", "0")
    assert done.returncode == 2 and "--items = '0': should be a number from 1 on" in done.stderr
    done = command("try", spec(model="nope"))
    assert done.returncode == 2 and "there is no such model" in done.stderr
