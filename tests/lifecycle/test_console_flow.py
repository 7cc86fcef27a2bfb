"""The console's flow on a server: registered with the pools or by Prefect's own command, run without the browser."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from fakes import processes

from deployments.services import overview
from deployments.set_up.deploy_service import deploy_service
from deployments.set_up.form_deployment import CONSOLE_POOL
from deployments.set_up.pools import apply_pools, list_pools
from tasks.domain.errors import SpecificationError

ROOT = Path(__file__).parents[2]
CHOICES = ["one-at-a-time", "public-cpu", "unattended"]
FORM = "/deployments/name/deploy_service/deploy-service"


def choices(stack) -> list[str]:
    properties = stack.server.ask(FORM)["parameter_openapi_schema"]["definitions"]["BatchService"]["properties"]
    found: list[str] = properties["resource_pool"].get("enum", [])
    return found


def run_form(stack, service, **body) -> str:
    stack.attend(CONSOLE_POOL)
    deployment = stack.server.ask(FORM)
    made = stack.server.ask(
        f"/deployments/{deployment['id']}/create_flow_run", {"parameters": {"service": service}, **body}
    )
    return str(made["id"])


def test_console__creates_and_starts_the_service_and_does_not_wait_for_runs_of_services(stack, fields, name):
    """Whatever holds the pool of services back: the form runs on a work pool of its own, without a limit."""
    assert choices(stack) == CHOICES
    assert stack.server.ask(FORM)["work_pool_name"] == CONSOLE_POOL
    assert stack.server.ask(f"/work_pools/{CONSOLE_POOL}")["concurrency_limit"] is None
    assert CONSOLE_POOL not in [one.name for one in list_pools()]
    with stack.paused():
        ended = stack.ended(run_form(stack, fields()))
        assert ended["state"]["type"] == "COMPLETED", stack.log(ended["id"])
        assert stack.status(name) == "Deploying"
    service = stack.completed(name)
    log = stack.log(ended["id"])
    assert service.page in log and service.last_run.page in log
    artifacts = stack.server.ask("/artifacts/filter", {"flow_runs": {"id": {"any_": [ended["id"]]}}})
    assert [one["key"] for one in artifacts] == [f"{name.lower()}-service"] and service.page in artifacts[0]["data"]


@pytest.mark.slow
@pytest.mark.prefect
@pytest.mark.xdist_group("lifecycle-sqlite")
def test_pools__none_may_take_the_name_of_the_consoles_work_pool(sqlite_stack, tmp_path):
    text = (sqlite_stack.pools / "one-at-a-time.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(text.replace("one-at-a-time", CONSOLE_POOL))
    with pytest.raises(SpecificationError, match=r"console.*the form that deploys services.*rename"):
        apply_pools(tmp_path)
    assert sqlite_stack.server.ask(f"/work_pools/{CONSOLE_POOL}")["concurrency_limit"] is None


def test_console__refuses_without_a_trace_and_creates_nothing(stack, fields, name):
    of_prefect = run_form(stack, fields(description="a < b"), enforce_parameter_schema=False)
    ended = stack.ended(of_prefect)  # refused before the flow begins
    assert ended["state"]["type"] == "FAILED" and "description" in ended["state"]["message"]
    assert "Traceback" not in stack.log(of_prefect)

    wrong = {"flavor": "gpu-9", "output_path": "here"}
    with stack.paused(CONSOLE_POOL):
        of_flow = run_form(stack, {**fields(), **wrong}, enforce_parameter_schema=False)
        ended = stack.execute(of_flow, deploy_service)
    message = ended["state"]["message"]
    assert ended["state"]["type"] == "FAILED" and all(field in message for field in wrong), message
    assert "Traceback" not in stack.log(of_flow)
    assert name not in [one.name for one in overview.list_services()]


@pytest.mark.slow
@pytest.mark.prefect
@pytest.mark.xdist_group("lifecycle-sqlite")
def test_prefect_yaml__registers_the_same_flow_by_prefects_own_command(sqlite_stack, fields, name):
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    ran = subprocess.run(
        [*command, "--prefect-file", "deployments/prefect.yaml"], cwd=ROOT, capture_output=True, text=True, timeout=180,
        stdin=subprocess.DEVNULL, preexec_fn=processes.die_with_parent,
        env={**sqlite_stack.environment, "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"},
    )  # fmt: skip
    try:
        assert ran.returncode == 0, ran.stdout + ran.stderr
        ended = sqlite_stack.ended(run_form(sqlite_stack, fields(resource_pool="unattended")))
        assert ended["state"]["type"] == "COMPLETED", sqlite_stack.log(ended["id"])
        assert sqlite_stack.status(name) == "Deploying"
    finally:
        apply_pools(sqlite_stack.pools)
    assert choices(sqlite_stack) == CHOICES
