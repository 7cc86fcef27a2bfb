"""What a specification is warned about when it is checked."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from clients.support import run

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
