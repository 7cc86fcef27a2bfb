"""What a specification is warned about when it is checked."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from clients.support import run

from tasks.clients.packages.pythons import own_interpreter
from tasks.domain.errors import SpecificationError
from tasks.domain.pool import Pool
from tasks.domain.running_address import is_running_model
from tasks.domain.settings import Settings
from tasks.engine.checking import check


def warnings_of(folder: Path, cluster: dict[str, str], **fields: Any) -> tuple[str, ...]:
    (folder / "in").mkdir(exist_ok=True)
    (folder / "in" / "a.bin").touch()
    config = {
        "model_type": "Image",
        "apis": [{"url": "/", "request": {"data": {"properties": {"f": {"type": "file"}}}}}],
    }
    config["apis"][0]["request"]["data"]["type"] = "object"
    (folder / "model").mkdir(exist_ok=True)
    (folder / "model" / "config.json").write_text(json.dumps(config))
    (folder / "model" / "run.sh").touch()
    pool = Pool.model_validate({"name": "p", "flavors": [{"name": "f", "cpu": 1, "memory_gb": 1}], "cluster": cluster})
    given: dict[str, Any] = {
        "model": str(folder / "model"), "input_path": str(folder / "in"), "output_path": str(folder / "out"),
        "resource_pool": "p", **fields,
    }  # fmt: skip
    if is_running_model(given["model"]):
        given["model_config"] = json.dumps(config)
    checked = check(
        given, task_id="t", scheduled_time=datetime.now(UTC), settings=Settings(), credentials={}, pools={"p": pool}
    )
    return run(checked).warnings


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:8786", "ws://localhost:1"])
def test_check__warns_of_a_scheduler_without_tls(tmp_path: Path, address: str) -> None:
    (warning,) = warnings_of(tmp_path, {"kind": "scheduler", "address": address})
    assert f"the Dask scheduler {address} has no TLS" in warning


def test_check__does_not_warn_of_other_clusters(tmp_path: Path) -> None:
    assert warnings_of(tmp_path, {"kind": "scheduler", "address": "tls://a:1"}) == ()
    assert warnings_of(tmp_path, {"kind": "local"}) == ()


def test_check__warns_of_headers_that_look_like_secrets_in_plain_text(tmp_path: Path) -> None:
    headers = {"Authorization": "Bearer hunter22", "X-Tenant": "acme", "X-Key": "{{ prefect.blocks.secret.key }}"}
    (warning,) = warnings_of(tmp_path, {"kind": "local"}, model="http://127.0.0.1:1", headers=headers)
    assert warning.startswith("headers.Authorization looks like a secret in plain text")
    assert "hunter22" not in warning


def test_check__warns_of_instances_that_the_addresses_say(tmp_path: Path) -> None:
    (warning,) = warnings_of(tmp_path, {"kind": "local"}, model="http://a http://b", instances=3)
    assert warning == "instances is not used: each address in model is one instance"


def test_check__warns_of_a_key_in_the_address(tmp_path: Path) -> None:
    address = "http://127.0.0.1:1/x?api-version=1&api_key=hunter22"
    (warning,) = warnings_of(tmp_path, {"kind": "local"}, model=address)
    assert warning.startswith("model: 'api_key' in the address looks like a secret") and "hunter22" not in warning


def package_of(folder: Path, code: str, **config: Any) -> str:
    """A package with this code, for the built-in model server."""
    package = folder / "built-in"
    package.mkdir()
    schema = {"type": "object", "properties": {"f": {"type": "file"}}}
    full = {"model_type": "PyTorch", "apis": [{"url": "/", "request": {"data": schema}}], **config}
    (package / "config.json").write_text(json.dumps(full))
    (package / "customize_service.py").write_text(code)
    return str(package)


def test_check__refuses_a_python_that_is_not_there_unless_loosened(tmp_path: Path) -> None:
    model = package_of(tmp_path, "", runtime="python3.99")
    with pytest.raises(SpecificationError) as raised:
        warnings_of(tmp_path, {"kind": "local"}, model=model)
    (problem,) = raised.value.problems
    assert "runtime python3.99 names Python 3.99, which this machine does not have" in str(problem)
    (warning,) = warnings_of(tmp_path, {"kind": "local"}, model=model, loosen=True)
    assert warning == f"The model's runtime python3.99 names Python 3.99: {own_interpreter()} serves it."


def test_check__warns_of_imports_that_neither_the_package_nor_the_base_list_provides(tmp_path: Path) -> None:
    code = "import numpy, torch, log, joblib, keras\nfrom metric.metrics_manager import MetricsManager\nimport wandb\n"
    (warning,) = warnings_of(tmp_path, {"kind": "local"}, model=package_of(tmp_path, code))
    assert warning.startswith("customize_service.py of the model imports keras, wandb: not in the package")
    assert "the base list of PyTorch" in warning


def test_check__warns_of_a_dependency_that_stands_twice(tmp_path: Path) -> None:
    packages = [{"package_name": "six", "package_version": one, "restraint": "EXACT"} for one in ("1.16.0", "1.17.0")]
    model = package_of(tmp_path, "", dependencies=[{"installer": "pip", "packages": packages}])
    (warning,) = warnings_of(tmp_path, {"kind": "local"}, model=model)
    assert warning == "dependencies of the model: six stands 2 times (six==1.16.0, six==1.17.0): the last one wins"


def test_check__names_fields_beside_a_file_that_are_not_sent(tmp_path: Path) -> None:
    properties = {"f": {"type": "file"}, "a": {"type": "string"}, "b": {"type": "string", "const": "x"}}
    schema = {"type": "object", "properties": properties}
    apis = [{"url": "/", "request": {"Content-type": "multipart/form-data", "data": schema}}]
    model = package_of(tmp_path, "", apis=apis)
    (warning,) = warnings_of(tmp_path, {"kind": "local"}, model=model)
    assert warning == "request of the model: a has no const or default, and is left out beside the file"
    schema["required"] = ["a"]
    (tmp_path / "built-in" / "config.json").write_text(json.dumps({"model_type": "PyTorch", "apis": apis}))
    with pytest.raises(SpecificationError, match="its request requires a beside the file"):
        warnings_of(tmp_path, {"kind": "local"}, model=model)


def test_check__warns_of_a_runtime_for_accelerators_on_a_pool_without(tmp_path: Path) -> None:
    warnings_of(tmp_path, {"kind": "local"})
    config = json.loads((tmp_path / "model" / "config.json").read_text()) | {"runtime": "tf1.13-python3.7-gpu"}
    (tmp_path / "gpu").mkdir()
    (tmp_path / "gpu" / "config.json").write_text(json.dumps(config))
    (tmp_path / "gpu" / "run.sh").touch()
    (warning,) = warnings_of(tmp_path, {"kind": "local"}, model=str(tmp_path / "gpu"))
    assert warning.startswith(
        "the model's runtime tf1.13-python3.7-gpu is one for accelerators, and the flavor f has none"
    )
