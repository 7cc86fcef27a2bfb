"""``thresher models check``: findings with file and line, and what a package will be served with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fakes.s3_server import S3Server

CONFIG = """{
  // written by hand
  "model_type": "PyTorch",
  "runtime": "python3.11",
  "apis": [
    {"url": "/", "method": "post", "request": {
      "Content-type": "application/json",
      "data": {"type": "object", "properties": {"a": {"type": "float"}, "b": {"type": "string"}}}}},
    {"url": "/state", "method": "get"}
  ],
  "dependencies": [{"installer": "pip", "packages": [
    {"package_name": "numpy", "package_version": "2.0.0"},
    {"package_name": "numpy", "package_version": "2.1.0"}
  ]}]
}
"""
CODE = """import json
from model_service.pytorch_model_service import PTServingBaseService
import torch, numpy
from helper import value


class Service(PTServingBaseService):
    pass
"""


@pytest.fixture
def written(tmp_path: Path) -> Any:
    """Writes a package of these files."""

    def write(config: str = CONFIG, code: str = CODE, folder: str = "package", **files: str) -> Path:
        home = tmp_path / folder
        home.mkdir(parents=True)
        (home / "config.json").write_text(config)
        (home / "customize_service.py").write_text(code)
        (home / "helper.py").write_text("import os\n\nimport not_to_be_had\n\nvalue = 1\n")
        for name, text in files.items():
            (home / f"{name}.py").write_text(text)
        return home

    return write


def wrong_of(command: Any, *arguments: object, **named: Any) -> list[str]:
    done = command("models", "check", *arguments, "--json", **named)
    found = json.loads(done.stdout)
    assert done.returncode == (1 if found["wrong"] else 0) and found["usable"] == (not found["wrong"])
    return [f"{one['file']}:{one['line']}: {one['message']}" for one in found["wrong"]]


def test_check__says_what_is_odd_and_what_is_installed(command: Any, written: Any) -> None:
    home = written()
    done = command("models", "check", home)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    lines = done.stdout.splitlines()
    for line in (
        "served by the built-in model server",
        "request   POST /: rows of 2 columns: a (number), b (string)",
        "installs  numpy==2.0.0 numpy==2.1.0",
        "base list torch",
        "  config.json: it has comments",
        "  config.json:9: apis[1], /state, is asked by GET",
        "  config.json:13: dependencies: numpy stands 2 times (numpy==2.0.0, numpy==2.1.0): the last one wins",
        "  config.json:6: a: the type 'float' is read as number",
        "The package can be served; see what is odd.",
    ):
        assert line in lines, done.stdout
    assert any(line.startswith("  helper.py:3: imports not_to_be_had: not in the package") for line in lines)
    found = json.loads(command("models", "check", home, "--json").stdout)
    assert (found["model_type"], found["serving"], found["runtime"]) == ("PyTorch", "built-in", "python3.11")
    assert found["python"].startswith("Python 3.11, /")
    assert (found["base_packages"], found["unprovided"]) == (["torch"], ["not_to_be_had"])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"url": "/",', '"url": "/predict",', "config.json:6: apis[0].url = '/predict': should be / for"),
        ('"model_type": "PyTorch",', "", "config.json:None: model_type: is missing"),
        ("2.1.0\"}", "2.1.0\", \"restraint\": \"ABOUT\"}",
         "config.json:13: dependencies[0].packages[1].restraint = 'ABOUT': should be 'EXACT', 'ATLEAST' or 'ATMOST'"),
        ('"runtime"', '"runtime" "x"', "config.json:4: should be JSON in UTF-8: Expecting ':' delimiter"),
        ("python3.11", "python3.99", "config.json:4: The model's runtime python3.99 names Python 3.99, which"),
        ('"post"', '"get"', "config.json:5: apis = '/, /state': a PyTorch model has exactly one API"),
        ('{"a": {"type": "float"}, "b": {"type": "string"}}', "{}", "config.json:6: apis[0].request of its"),
    ],
)  # fmt: skip
def test_check__names_the_line_of_what_is_wrong_in_config_json(
    command: Any, written: Any, old: str, new: str, message: str
) -> None:
    home = written(CONFIG.replace(old, new))
    found = wrong_of(command, home)
    assert [one[: len(message)] for one in found] == ([message] if message else [])


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import json\nprint 'python 2'\n", "customize_service.py:2: is not valid Python: "),
        (CODE + "\nclass Other(PTServingBaseService):\n    pass\n",
         "customize_service.py:10: defines 2 services (Service, Other): exactly one is needed"),
        ("class Service:\n    pass\n", "customize_service.py:None: defines no service: one class must derive from"),
    ],
)  # fmt: skip
def test_check__names_the_line_of_what_is_wrong_in_the_code(
    command: Any, written: Any, code: str, message: str
) -> None:
    (found,) = wrong_of(command, written(code=code))
    assert found.startswith(message)


def test_check__of_packages_that_nothing_serves(command: Any, written: Any, tmp_path: Path) -> None:
    home = written()
    (home / "customize_service.py").unlink()
    assert wrong_of(command, home)[0].endswith("so nothing says how it is served")
    (home / "config.json").write_text('{"model_type": "Image", "swr_location": "registry.example.com/a:1"}')
    found = json.loads(command("models", "check", home, "--json").stdout)
    assert (found["serving"], [one["file"] for one in found["odd"]]) == ("sidecar", ["config.json"])
    (home / "config.json").unlink()
    assert "neither is there" in wrong_of(command, home)[0]
    done = command("models", "check", tmp_path / "nowhere")
    assert (done.returncode, done.stdout) == (2, "") and "there is no such folder" in done.stderr
    done = command("models", "check", "nowhere")
    assert done.returncode == 2 and "PATH = 'nowhere': there is no such model in my-models" in done.stderr


@pytest.mark.parametrize("bad", ["[" * 3_000_000, '{"model_type": "x", "a": ' + "[" * 100_000, " " * (5 << 20)])
def test_check__of_a_huge_config_json_is_refused_in_a_line(command: Any, written: Any, bad: str) -> None:
    (found,) = wrong_of(command, written(bad))
    assert len(found) < 200


def test_check__reads_the_code_of_a_package_in_object_storage(command: Any, written: Any, tmp_path: Path) -> None:
    home = written(folder="remote/model")
    with S3Server(tmp_path / "s3") as s3:
        for path in home.iterdir():
            s3.put("models", f"remote/model/{path.name}", path.read_bytes())
        done = command("models", "check", "s3://models/remote", "--json", env=s3.environment())
        nothing = command("models", "check", "s3://models/nothing", env=s3.environment())
    found = json.loads(done.stdout)
    assert (found["serving"], found["unprovided"], found["wrong"]) == ("built-in", ["not_to_be_had"], [])
    assert {"model/helper.py", "model/config.json"} == {one["file"] for one in found["odd"]}
    assert nothing.returncode == 2 and "there is nothing below this address" in nothing.stderr
