"""``thresher models init``: packages that run at once, each command printed by the one before it."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

KINDS = {"table": {"predictresult": "setosa"}, "file": {"width": 16, "height": 8}, "run.sh": {"area": 6}}


@pytest.mark.parametrize("kind", KINDS)
def test_init__writes_a_package_that_is_tried_and_run_by_the_commands_it_prints(
    command: Any, thresher: Any, prefect_server: str, tmp_path: Path, kind: str
) -> None:
    done = command("models", "init", "my model", "--kind", kind)
    assert done.returncode == 0, done.stderr
    assert "my model: wrote config.json" in done.stderr
    first, second = (shlex.split(line) for line in done.stdout.splitlines())
    checked = command("models", "check", "my model")
    assert (checked.returncode, checked.stdout.splitlines()[-1]) == (0, "The package can be served.")

    tried = command(*first[1:], "--json")
    assert tried.returncode == 0, tried.stderr
    (exchange,) = json.loads(tried.stdout)["exchanges"]
    answer = json.loads(exchange["answer"])
    if kind == "table":
        (answer,) = answer["data"]["resp_data"]
    assert KINDS[kind].items() <= answer.items()

    assert second[:2] == ["thresher", "run"] and f"Next: {shlex.join(second)}" in command(*first[1:]).stderr
    if kind != "table":
        assert command("validate", *second[2:]).returncode == 0
        return
    ran = thresher(*second[1:], env={"PREFECT_API_URL": prefect_server})
    assert ran.returncode == 0, ran.stderr
    manifest = Path(ran.stdout.strip())
    assert manifest.parent == tmp_path / "my-model-output"
    assert [json.loads(line)["result"] for line in manifest.read_text().splitlines()] == ["SUCCESSFUL"]


def test_init__takes_an_empty_folder_also_the_one_it_is_called_in(command: Any, tmp_path: Path) -> None:
    inode = tmp_path.stat().st_ino
    done = command("models", "init", ".")
    assert done.returncode == 0, done.stderr
    assert {"config.json", "customize_service.py", "service.yaml", "example"} <= set(os.listdir(tmp_path))
    assert tmp_path.stat().st_ino == inode
    assert "NAME" not in (tmp_path / "service.yaml").read_text()


def test_init__refuses_a_folder_with_files_and_leaves_it_alone(command: Any, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").write_text("n")
    done = command("models", "init", "mine", "--kind", "file")
    assert (done.returncode, done.stdout) == (2, "")
    assert "FOLDER = 'mine': should be a new or an empty folder; it has files" in done.stderr
    assert os.listdir(tmp_path) == ["mine"] and os.listdir(tmp_path / "mine") == ["notes"]
    assert command("models", "init", "mine/notes/below").returncode == 2
    assert command("models", "init", "new", "--kind", "nothing").returncode == 2
    (tmp_path / "link").symlink_to("nowhere")
    assert command("models", "init", "link").returncode == 2
    assert sorted(os.listdir(tmp_path)) == ["link", "mine"]


def test_init__writes_the_package_of_a_bare_model(command: Any, tmp_path: Path) -> None:
    shutil.copy(ROOT / "infra" / "models" / "iris" / "iris.onnx", tmp_path / "iris.onnx")
    done = command("models", "init", "iris.onnx", "--to", "made")
    assert done.returncode == 0, done.stderr
    first, second = (shlex.split(line) for line in done.stdout.splitlines())
    assert first == ["thresher", "models", "try", "made", "--row", "0,0,0,0"]
    assert {"config.json", "customize_service.py", "iris.onnx", "service.yaml"} <= set(os.listdir(tmp_path / "made"))
    tried = command(*first[1:], "--json")
    assert tried.returncode == 0, tried.stderr
    (exchange,) = json.loads(tried.stdout)["exchanges"]
    assert len(json.loads(exchange["answer"])["data"]["resp_data"]) == 1
    assert second == ["thresher", "run", "made/service.yaml"]
    assert command("validate", second[2]).returncode == 0
    again = command("models", "init", "iris.onnx", "--to", "made")
    assert (again.returncode, again.stdout) == (2, "") and "should be an empty folder" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("config.json",), "config.json': is no model of XGBoost"),
        (("nothing.onnx", "--to", "x"), "there is no such file"),
        (("new", "--kind", "file", "--to", "x"), "--to"),
    ],
)
def test_init__refuses_what_is_no_model_in_one_line(
    command: Any, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    (tmp_path / "config.json").write_text("{}")
    done = command("models", "init", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "x").exists()
