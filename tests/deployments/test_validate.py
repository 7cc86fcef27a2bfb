"""`thresher validate`, and what `thresher run` checks before Prefect: called here, in this process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes.processes import free_port

from deployments.commands import running
from deployments.one_run.validation import check_service, preview_text, validate_service
from tasks.domain.errors import SpecificationError

POOL = "name: {name}\nflavors:\n  - {{name: only, cpu: 1, memory_gb: 1}}\n"
Fields = Callable[..., dict[str, Any]]


@pytest.fixture
def fields(tmp_path: Path, running: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Fields:
    """Fields of a service whose model runs, without any Prefect server."""
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("THRESHER_STACK", str(tmp_path / "no-stack"))

    def make(**more: Any) -> dict[str, Any]:
        (tmp_path / "in").mkdir(exist_ok=True)
        paths = {"input_path": str(tmp_path / "in"), "output_path": str(tmp_path / "out")}
        return {"name": "checked", **running, **paths, **more}

    return make


@pytest.fixture
def spec(tmp_path: Path, fields: Fields) -> Callable[..., Path]:
    """Writes a specification of such a service."""

    def write(**more: Any) -> Path:
        path = tmp_path / "spec.yaml"
        path.write_text(json.dumps(fields(**more)))
        return path

    return write


def test_check__refuses_a_service_none_of_whose_items_could_be_sent_like_validate(
    fields: Fields, tmp_path: Path, write_files: Any
) -> None:
    write_files(tmp_path / "in", {"1.jpg": "x", "2.jpg": "y"})
    with pytest.raises(SpecificationError) as checked:
        check_service(fields(request_path="/echo"))
    _, problems = validate_service(fields(request_path="/echo"))
    assert list(checked.value.problems) == problems
    write_files(tmp_path / "in", {"3.csv": "1,x"})
    assert check_service(fields(request_path="/echo")).service.name == "checked"


# -- what is told of items ------------------------------------------------------------------------------------------


def test_validate__shows_what_it_found_and_refuses_a_service_none_of_whose_items_could_be_sent(
    spec: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], write_files: Any
) -> None:
    write_files(tmp_path / "in", {"1.jpg": "x", "2.jpg": "y"})
    path = spec(request_path="/echo")
    with pytest.raises(SpecificationError, match=r"no item of it could be sent: 2 of 2 items: A \.csv file"):
        running.validate(path)
    text = capsys.readouterr().out
    assert "plan      2 items, 2 bytes, 1 shards\n          0 rows\nrefused   2 of 2 items (kind of file)\n" in text
    assert text.endswith(
        "first request: none, because no item could be sent: 2 of 2 items: A .csv file was expected, because the "
        f"model's request is JSON: one request a row ({tmp_path}/in/1.jpg)\n"
    )
    with pytest.raises(SpecificationError) as raised:
        running.validate(path, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["problems"] == [str(problem) for problem in raised.value.problems]
    (refused,) = found["refused"]
    assert (refused["reason"], refused["items"], refused["of"]) == ("kind", 2, 2)
    assert found["request"] is None and found["no_request"].startswith("no item could be sent: ")


def test_validate__warns_of_items_that_will_be_refused_beside_others(
    spec: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], write_files: Any
) -> None:
    write_files(tmp_path / "in", {"1.jpg": "x", "2.csv": "1,x\n"})
    assert running.validate(spec(request_path="/echo")) == 0
    said = capsys.readouterr()
    assert "refused   1 of 2 items (kind of file)\n" in said.out and "first request (of " in said.out
    assert said.err.startswith("warning: 1 of 2 items will be FAILED: A .csv file was expected")


def test_validate__names_modules_that_nothing_brings(
    fields: Fields, tmp_path: Path, config: Any, write_files: Any
) -> None:
    write_files(tmp_path / "in", {"1.jpg": "x"})
    made = config(model_type="PyTorch")
    made["apis"] = made["apis"][:1]
    package = {"installer": "pip", "packages": [{"package_name": "torchvision"}]}
    home = write_files(
        tmp_path / "package",
        {
            "config.json": json.dumps({**made, "dependencies": [package]}),
            "customize_service.py": "import torch, json, orjson, net, log, cv2\nimport wandb, mmcv\n"
            "from model_service.pytorch_model_service import PTServingBaseService\n",
            "net.py": "",
        },
    )
    found, problems = validate_service(fields(model=str(home), model_config=None))
    assert problems == []
    (warning,) = found["warnings"]
    assert (
        "customize_service.py of the model imports mmcv, wandb: not in the package, its dependencies, the base"
        in warning
    )
    (home / "requirements.txt").write_text("mmcv-full\nwandb\n")
    assert validate_service(fields(model=str(home), model_config=None))[0]["warnings"] == []
    (home / "customize_service.py").write_text("import os\nprint 'x'\n")
    (warning,) = validate_service(fields(model=str(home), model_config=None))[0]["warnings"]
    assert warning.startswith("customize_service.py of the model, line 2: Missing parentheses")


# -- before Prefect -------------------------------------------------------------------------------------------------

BEFORE_PREFECT = """
import json, sys
from deployments.one_run.run import run_service
from tasks.domain.errors import SpecificationError
said = []
for fields in json.loads(sys.argv[1]):
    try:
        run_service(fields)
    except SpecificationError as error:
        said.append(str(error))
print(json.dumps([said, "prefect" in sys.modules]))
"""
WRONG: list[dict[str, Any]] = [
    {"instances": 0, "input_path": "/no/such/folder"}, {"flavor": "huge"}, {"resource_pool": "moon"},
    {"output_path": "/proc/x"}, {"model": "/no/such/package", "model_config": None}, {"request_path": "/other"},
]  # fmt: skip


def test_run__is_refused_as_validate_refuses_it_before_prefect_is_imported(
    fields: Fields, tmp_path: Path, write_files: Any
) -> None:
    write_files(tmp_path / "in", {"1.jpg": "x"})
    refusals = []
    for wrong in WRONG:
        with pytest.raises(SpecificationError) as raised:
            validate_service(fields(**wrong))
        refusals.append(str(raised.value))
    command = [sys.executable, "-c", BEFORE_PREFECT, json.dumps([fields(**wrong) for wrong in WRONG])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == json.dumps([refusals, False]) + "\n", done.stderr
    assert done.stderr == ""


def test_check__of_what_a_run_would_do_creates_nothing(fields: Fields, tmp_path: Path, write_files: Any) -> None:
    write_files(tmp_path / "in", {"1.jpg": "x"})
    assert check_service(fields()).service.name == "checked"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


# -- resource pools -------------------------------------------------------------------------------------------------


@pytest.fixture
def files_of_pools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another folder of pool files than that of the administrator."""
    folder = tmp_path / "pools"
    folder.mkdir()
    (folder / "filed.yaml").write_text(POOL.format(name="filed"))
    monkeypatch.setenv("THRESHER_POOLS", str(folder))
    return folder


@pytest.mark.prefect
def test_pools__of_the_server_may_be_named_as_deploy_takes_them(
    fields: Fields, tmp_path: Path, write_files: Any, files_of_pools: Path, prefect_server: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from deployments.set_up.pools import apply_pools

    write_files(tmp_path / "in", {"1.jpg": "x"})
    monkeypatch.setenv("PREFECT_API_URL", prefect_server)
    served = tmp_path / "served"
    served.mkdir()
    (served / "served.yaml").write_text(POOL.format(name="served"))
    apply_pools(served)
    found, problems = validate_service(fields(resource_pool="served"))
    assert (found["flavor"], problems, found["warnings"]) == ("only", [], [])
    assert check_service(fields(resource_pool="served")).flavor.name == "only"
    (warning,) = validate_service(fields(resource_pool="filed"))[0]["warnings"]
    assert warning.startswith("resource_pool filed is in the files of ") and "`thresher pools apply`" in warning
    with pytest.raises(SpecificationError, match=r"there are: .*filed.*served"):
        validate_service(fields(resource_pool="moon"))


def test_pools__of_a_server_that_is_away_are_said_to_be_unknown(
    command: Any, spec: Any, tmp_path: Path, write_files: Any, files_of_pools: Path
) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    write_files(tmp_path / "in", {"1.jpg": "x"})
    url = f"http://127.0.0.1:{free_port()}/api"
    away = {"PREFECT_API_URL": url}
    with temporary_settings({PREFECT_API_URL: url}):  # another process would read the variable
        done = command("validate", spec(resource_pool="filed"), env=away)
        refused = [command(verb, spec(resource_pool="served"), env=away) for verb in ("validate", "run")]
    assert done.returncode == 0
    said = (
        f"warning: resource pools are those of {files_of_pools}, and perhaps others when deployed: The Prefect server"
    )
    assert done.stderr.startswith(said) and done.stderr.count("\n") == 1
    for done in refused:
        assert done.returncode == 2
        said = f"resource_pool = 'served': is not in the files of {files_of_pools}, and the Prefect server could not be"
        assert said in done.stderr and "there is no such resource pool" not in done.stderr


def test_pool_files__that_are_wrong_are_told_with_the_other_problems(
    fields: Fields, files_of_pools: Path, tmp_path: Path
) -> None:
    (files_of_pools / "filed.yaml").write_text("name: filed\n")
    with pytest.raises(SpecificationError) as raised:
        check_service(fields(input_path="/no/such/folder"))
    assert [problem.field.rpartition("/")[2] for problem in raised.value.problems] == [
        "filed.yaml: flavors",
        "input_path",
    ]


@pytest.mark.slow
def test_validate__shows_the_package_that_a_bare_model_is_made_into(fields: Fields, tmp_path: Path) -> None:
    iris = Path(__file__).parents[2] / "infra" / "models" / "iris"
    (tmp_path / "flowers.onnx").write_bytes((iris / "iris.onnx").read_bytes())
    found, problems = validate_service(
        fields(model=str(tmp_path / "flowers.onnx"), model_config=None, input_path=str(iris / "data"))
    )
    assert (problems, found["warnings"]) == ([], [])
    made = found["made_package"]
    assert made["of"] == str(tmp_path / "flowers.onnx")
    packages = made["config"]["dependencies"][0]["packages"]
    assert [one["package_name"] for one in packages] == ["onnxruntime", "numpy"]
    text = preview_text(found)
    assert f"package made of {made['of']}\n{made['folder']}\n" in text
    assert '"package_name": "onnxruntime"' in text and '"input_4": {' in text
