"""What a specification is warned about when it is checked."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from clients.support import run

from tasks.domain.pool import Pool
from tasks.engine.checking import check
from tasks.settings import Settings


def warnings_of(folder: Path, cluster: dict[str, str]) -> tuple[str, ...]:
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
    fields = {
        "model": str(folder / "model"), "input_path": str(folder / "in"), "output_path": str(folder / "out"),
        "resource_pool": "p",
    }  # fmt: skip
    checked = check(
        fields, task_id="t", scheduled_time=datetime.now(UTC), settings=Settings(), credentials={}, pools={"p": pool}
    )
    return run(checked).warnings


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:8786", "ws://localhost:1"])
def test_check__warns_of_a_scheduler_without_tls(tmp_path: Path, address: str) -> None:
    (warning,) = warnings_of(tmp_path, {"kind": "scheduler", "address": address})
    assert f"the Dask scheduler {address} has no TLS" in warning


def test_check__does_not_warn_of_other_clusters(tmp_path: Path) -> None:
    assert warnings_of(tmp_path, {"kind": "scheduler", "address": "tls://a:1"}) == ()
    assert warnings_of(tmp_path, {"kind": "local"}) == ()
