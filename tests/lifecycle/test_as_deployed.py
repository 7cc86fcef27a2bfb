"""What a run may not change of its service, and what it may, whoever starts it; services follow their pool's file."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
import yaml
from fakes import processes

from deployments import lifecycle, overview
from tasks.domain.errors import ServerError, SpecificationError

POOLS = Path(__file__).parents[2] / "infra" / "pools"
ON_SQLITE = pytest.mark.xdist_group("lifecycle-sqlite")


def run_with(stack, name, /, **changed):
    """Start a service as the user interface does, with changed fields; the flow run's id."""
    deployment = stack.deployment(name)
    parameters = {"service": {**deployment["parameters"]["service"], **changed}}
    created = stack.server.ask(f"/deployments/{deployment['id']}/create_flow_run", {"parameters": parameters})
    return str(created["id"])


def test_run_from_the_user_interface__may_not_leave_its_service(stack, fields, name):
    lifecycle.deploy(fields())
    stack.completed(name)
    ended = stack.ended(run_with(stack, name, name="another", output_path="here"))
    message = ended["state"]["message"]
    assert ended["state"]["type"] == "FAILED"
    assert f"is {name} and cannot be changed" in message and "output_path" in message and "absolute" in message


def test_runtime_log_output__stays_on_though_its_tag_was_taken_away(stack, fields, name):
    lifecycle.deploy(fields())
    stack.completed(name)
    assert stack.ended(lifecycle.start(name, {"runtime_log_output": True}).id)["state"]["type"] == "COMPLETED"
    deployment = stack.deployment(name)
    assert "runtime-log-output" in deployment["tags"]
    stack.server.ask(f"/deployments/{deployment['id']}", {"tags": ["thresher"]}, "PATCH")
    with pytest.raises(SpecificationError, match=r"runtime_log_output.*cannot be set back"):
        lifecycle.start(name)
    ended = stack.ended(stack.run(name))
    assert ended["state"]["type"] == "FAILED" and "cannot be set back" in ended["state"]["message"]


def test_start__one_variable_of_several_is_changed(stack, fields, name):
    lifecycle.deploy(fields(environment={"A": "1", "B": "2"}))
    stack.completed(name)
    begun = lifecycle.start(name, ["environment.A=9"])
    stack.ended(begun.id)
    service = stack.server.ask(f"/flow_runs/{begun.id}")["parameters"]["service"]
    assert service["environment"] == {"A": "9", "B": "2"}
    assert stack.deployment(name)["parameters"]["service"]["environment"]["A"] == "1"


def test_schedule__a_wrong_one_is_refused_and_the_old_one_stays(stack, fields, name):
    lifecycle.deploy(fields())
    lifecycle.schedule(name, {"cron": "0 3 * * *", "timezone": "Asia/Shanghai"})
    wrong = [
        {"cron": "99 3 * * *"}, {"cron": "0 2 * * 8"}, {"interval_minutes": 1e15},
        {"cron": "0 3 * * *", "timezone": "posix/Europe/Berlin"},
    ]  # fmt: skip
    for when in wrong:
        with pytest.raises(SpecificationError, match="schedule"):
            lifecycle.schedule(name, when)
    assert overview.show(name).schedule == "0 3 * * *"
    assert lifecycle.schedule(name, {"cron": "0 4 * * *"}).schedule == "0 4 * * *"
    stack.completed(name)


@pytest.mark.slow
@pytest.mark.prefect
@ON_SQLITE
def test_wait__for_a_run_that_was_deleted_is_one_line(sqlite_stack):
    with pytest.raises(ServerError, match="has not got /api/flow_runs/") as refused:
        asyncio.run(lifecycle.wait_for(str(uuid.uuid4())))
    assert "\n" not in str(refused.value)


@pytest.mark.slow
@pytest.mark.prefect
@ON_SQLITE
def test_pools_apply__services_get_what_their_flavor_says_now_and_may_use_new_ones(
    sqlite_stack, fields, name, tmp_path
):
    from deployments.pools import apply_pools

    folder = tmp_path / "pools"
    folder.mkdir()
    shutil.copy(POOLS / "dedicated-example.yaml", folder / "containers.yaml")
    pool = yaml.safe_load((folder / "containers.yaml").read_text()) | {"name": "containers"}
    pool["flavors"] = [{"name": "large", "cpu": 2, "memory_gb": 4}]
    (folder / "containers.yaml").write_text(yaml.safe_dump(pool))
    apply_pools(folder)
    lifecycle.deploy(fields(resource_pool="containers", flavor="large"))
    assert sqlite_stack.deployment(name)["job_variables"]["cpu_request"] == "2500m"
    with pytest.raises(SpecificationError, match="flavor"):
        lifecycle.start(name, {"flavor": "larger"})

    pool["flavors"][0]["cpu"] = 3
    pool["flavors"].append({"name": "larger", "cpu": 8, "memory_gb": 4})
    (folder / "containers.yaml").write_text(yaml.safe_dump(pool))
    apply_pools(folder)
    assert sqlite_stack.deployment(name)["job_variables"]["cpu_request"] == "3500m"
    started = sqlite_stack.server.ask(f"/flow_runs/{lifecycle.start(name, {'flavor': 'larger'}).id}")
    assert started["job_variables"]["cpu_request"] == "8500m"

    # The user interface makes no room for more instances: such a run is refused by itself, wherever it is executed.
    task_id = run_with(sqlite_stack, name, instances=3)
    command = [sys.executable, "-m", "prefect", "flow-run", "execute", task_id]
    subprocess.run(
        command, env={"PATH": "/usr/bin:/bin", **sqlite_stack.environment}, cwd=tmp_path, timeout=170,
        capture_output=True, check=False,
    )  # fmt: skip
    ended = sqlite_stack.ended(task_id)
    assert ended["state"]["type"] == "FAILED"
    assert "is 1 for this service" in ended["state"]["message"] and "thresher start" in ended["state"]["message"]

    sqlite_stack.server.ask("/work_pools/containers", {}, "DELETE")
    apply_pools(sqlite_stack.pools)  # the form offers it no more


def test_wait__that_is_interrupted_says_that_the_run_goes_on(stack, thresher, fields, name, tmp_path):
    gate = tmp_path / "gate"
    spec = tmp_path / "spec.yaml"
    spec.write_text(yaml.safe_dump(fields({"a.bin": f"FAIL:until:{gate} "})))
    said = tmp_path / "said"
    waiting = processes.start(
        thresher.command(("deploy", spec, "--wait")), said, thresher.environment(stack.environment)
    )
    try:
        processes.poll(lambda: f"Created {name}" in said.read_text(), said.read_text)
        stack.until(name, "Running")
        waiting.terminate()
        assert waiting.wait(180) == 1
    finally:
        processes.stop(waiting)
    assert f"thresher stop {name}" in said.read_text().replace("\n", " ") and "Traceback" not in said.read_text()
    gate.touch()
    stack.completed(name)
