"""What a run may not change of its service, and what it may, whoever starts it; services follow their pool's file."""

from __future__ import annotations

import asyncio
import shutil
import uuid
from pathlib import Path

import pytest
import requests
import yaml

from deployments.services import lifecycle, overview
from tasks.domain.errors import ServerError, SpecificationError

POOLS = Path(__file__).parents[2] / "infra" / "pools"
ON_SQLITE = pytest.mark.xdist_group("lifecycle-sqlite")


def test_run_from_the_user_interface__may_not_leave_its_service(stack, fields, name):
    """A worker starts this run; refused runs below are run in this process."""
    stack.deploy_only(fields())
    ended = stack.ended(stack.run(name, name="another", output_path="here"))
    message = ended["state"]["message"]
    assert ended["state"]["type"] == "FAILED"
    assert f"is {name} and cannot be changed" in message and "output_path" in message and "absolute" in message


def test_specification_changed_on_the_server__is_refused_in_our_words(stack, fields, name):
    lifecycle.deploy(fields(resource_pool="unattended"))
    with pytest.raises(requests.HTTPError, match=r"409|422"):  # the form's schema is enforced
        stack.run(name, instances=0)

    stack.change(name, instances=0)
    with pytest.raises(SpecificationError, match="instances"):
        lifecycle.start(name)
    ended = stack.execute(stack.run(name))
    assert ended["state"]["type"] == "FAILED" and "instances" in ended["state"]["message"]
    assert overview.show(name).status == "Failed"


def test_runtime_log_output__cannot_be_set_back(stack, fields, name):
    lifecycle.deploy(fields(resource_pool="unattended", runtime_log_output=True))
    with pytest.raises(SpecificationError, match=r"runtime_log_output.*cannot be set back"):
        lifecycle.start(name, {"runtime_log_output": False})
    stack.change(name, runtime_log_output=False)
    with pytest.raises(SpecificationError, match=r"runtime_log_output.*cannot be set back"):
        lifecycle.start(name)
    ended = stack.execute(stack.run(name))
    assert ended["state"]["type"] == "FAILED" and "cannot be set back" in ended["state"]["message"]


def test_runtime_log_output__stays_on_though_its_tag_was_taken_away(stack, fields, name):
    lifecycle.deploy(fields(resource_pool="unattended"))
    begun = lifecycle.start(name, {"runtime_log_output": True})
    assert stack.execute(begun.id)["state"]["type"] == "COMPLETED", stack.told(name)
    deployment = stack.deployment(name)
    assert "runtime-log-output" in deployment["tags"]
    stack.server.ask(f"/deployments/{deployment['id']}", {"tags": ["thresher"]}, "PATCH")
    with pytest.raises(SpecificationError, match=r"runtime_log_output.*cannot be set back"):
        lifecycle.start(name)
    ended = stack.execute(stack.run(name))
    assert ended["state"]["type"] == "FAILED" and "cannot be set back" in ended["state"]["message"]


def test_schedule__a_wrong_one_is_refused_and_the_old_one_stays(stack, fields, name):
    lifecycle.deploy(fields(resource_pool="unattended"))
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
    from deployments.set_up.pools import apply_pools

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
    ended = sqlite_stack.execute(sqlite_stack.run(name, instances=3))
    assert ended["state"]["type"] == "FAILED"
    assert "is 1 for this service" in ended["state"]["message"] and "thresher start" in ended["state"]["message"]

    sqlite_stack.server.ask("/work_pools/containers", {}, "DELETE")
    apply_pools(sqlite_stack.pools)  # the form offers it no more
