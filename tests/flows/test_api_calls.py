"""What a run asks Prefect's server: so much for the run, nothing for a shard but what Prefect tells of its task run."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import requests
from fakes.api_proxy import ApiProxy
from fakes.processes import poll

ROOT = Path(__file__).parents[2]
BY_TIME = {
    ("PATCH", "/flow_runs/{id}/labels"): "how far the run is, when that has changed",
    ("PATCH", "/artifacts/{id}"): "the same",
    ("GET", "/flow_runs/{id}"): "whether it is to be stopped",
}
"""Calls every two seconds; how many that are depends on how long the run takes."""
OF_A_RUN = {
    ("POST", "/flows/"): 1,
    ("POST", "/flow_runs/"): 1,
    ("PATCH", "/flow_runs/{id}"): 1,  # its name
    ("POST", "/flow_runs/{id}/set_state"): 2,  # Running, and how it ended
    ("POST", "/artifacts/"): 2,  # progress and summary
    ("GET", "/admin/storage"): 2,  # where results would be kept: Prefect asks, though none are
}
OF_A_CLIENT = {("GET", "/admin/version"), ("GET", "/csrf-token"), ("GET", "/flows/{id}"), ("GET", "/events/in")}
"""What Prefect's clients ask when they connect: that of the command, and that of the worker that sends its events."""


@pytest.mark.prefect
def test_run__asks_the_server_as_often_for_many_items_and_shards_as_for_one(
    thresher: Any, prefect_server: str, running: dict[str, str], write_files: Any, tmp_path: Path
) -> None:
    asked: dict[tuple[int, int], Counter[tuple[str, str]]] = {}
    for items, shards in ((1, 1), (40, 1), (40, 5)):
        name = f"calls-{items}-{shards}"
        write_files(tmp_path / name / "in", {f"{number}.jpg": b"x" for number in range(items)})
        spec = tmp_path / f"{name}.yaml"
        fields = {**running, "name": name, "input_path": f"{name}/in", "output_path": f"{name}/out"}
        spec.write_text(json.dumps(fields))
        with ApiProxy(prefect_server) as proxy:
            env = {"PREFECT_API_URL": proxy.api, "THRESHER_SHARD_ITEMS": str(items // shards)}
            done = thresher("run", spec, "--json", env=env)
        assert done.returncode == 0, done.stderr
        asked[items, shards] = proxy.calls
        _check_task_runs(prefect_server, json.loads(done.stdout)["task_id"], shards)
    for calls in asked.values():
        fixed = {call: count for call, count in calls.items() if call not in BY_TIME and call not in OF_A_CLIENT}
        assert fixed == OF_A_RUN
        assert 1 <= calls["GET", "/admin/version"] <= 3  # before anything else, too
        assert sum(calls[call] for call in OF_A_CLIENT) <= 6
        assert calls["PATCH", "/flow_runs/{id}/labels"] >= 2  # the first word, and the last


def _check_task_runs(server: str, task_id: str, shards: int) -> None:
    """A task run for each box of the graph, three states each, and no other event of a task run."""
    of_it = {"event": {"prefix": ["prefect.task-run."]}, "related": {"id": [f"prefect.flow-run.{task_id}"]}}
    boxes = 3 + shards

    def told() -> int:
        answer = requests.post(f"{server}/events/filter", json={"filter": of_it, "limit": 50}, timeout=60)
        return int(answer.json()["total"])

    poll(lambda: told() >= 3 * boxes, f"{3 * boxes} events of the task runs of {task_id}")
    assert told() == 3 * boxes
    runs = requests.post(
        f"{server}/task_runs/count", json={"flow_runs": {"id": {"any_": [task_id]}}}, timeout=60
    ).json()
    assert runs == boxes


def test_flow__imports_neither_a_server_nor_dask_nor_s3fs() -> None:
    script = "import sys, flows.batch_service, prefect.flow_engine\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    imported = set(done.stdout.split())
    assert "prefect.flows" in imported
    packages = {name.partition(".")[0] for name in imported}
    assert not packages & {"sqlalchemy", "fastapi", "uvicorn", "distributed", "dask", "s3fs", "botocore", "kubernetes"}
    assert not any(name.startswith("prefect.server") for name in imported)


def test_instance__finds_its_result_storage_without_prefects_integrations() -> None:
    script = """
import sys
from tasks.prefect_side.internals import without_integrations
without_integrations()
from prefect.blocks.core import Block
print(Block.get_block_class_from_key("local-file-system").__name__, *sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120)
    found, *imported = done.stdout.split()
    assert found == "LocalFileSystem", done.stderr
    assert not {"prefect_docker", "prefect_kubernetes", "kubernetes_asyncio"} & set(imported)


def test_parameters__are_stored_as_prefect_would_store_them_without_its_servers_code() -> None:
    script = """
import sys
from prefect import Flow
from flows.batch_service import batch_service
from tasks.domain.service import BatchService
rule = {"type": "object", "properties": {"a": {"type": "number", "index": 0}}}
full = BatchService(model="m", input_path="/in", output_path="/out", environment={"A": "b"}, mapping=rule,
                    schedule={"cron": "0 2 * * *"}, error_threshold=0.5)
services = [full, {"model": "m", "input_path": "/in"}]
ours = [batch_service.serialize_parameters({"service": one}) for one in services]
assert "fastapi" not in sys.modules
services.append(object())
ours.append(batch_service.serialize_parameters({"service": services[-1]}))
assert ours == [Flow.serialize_parameters(batch_service, {"service": one}) for one in services], ours
assert "fastapi" in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
