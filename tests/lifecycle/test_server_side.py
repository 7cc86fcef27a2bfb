"""What happens to services from the server's side: changed there, started there, scheduled, secrets kept there."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fakes import processes
from lifecycle.support import vanished

from deployments.commands.services import delete
from deployments.services import lifecycle, overview
from deployments.set_up.pools import apply_pools
from deployments.set_up.zombies import end_orphans
from tasks.domain.errors import ServerError, SpecificationError
from tasks.prefect_side import api

VALUE = "opensesame-4711-opensesame"


def test_start__a_refusal_by_the_server_is_one_line(stack, fields, name):
    lifecycle.deploy(fields(resource_pool="unattended"))
    deployment = stack.deployment(name)
    schema = json.loads(json.dumps(deployment["parameter_openapi_schema"]))
    schema["definitions"]["BatchService"]["properties"]["instances"]["maximum"] = 1
    stack.server.ask(f"/deployments/{deployment['id']}", {"parameter_openapi_schema": schema}, "PATCH")
    with pytest.raises(ServerError) as refused:
        lifecycle.start(name, {"instances": 2})
    message = str(refused.value)
    assert "\n" not in message and "instances" in message and ("409" in message or "422" in message)
    assert len(overview.runs(name)) == 1


def test_schedule__an_interval_fires(stack, fields, name):
    stack.deploy_only(fields())
    assert lifecycle.schedule(name, {"interval_minutes": 0.1}).schedule == "every 0.1 min"

    def fired() -> list[str]:
        return [one["id"] for one in _runs_of(stack, name) if one["state_type"] != "SCHEDULED"]

    (task_id, *_) = processes.poll(fired, lambda: stack.told(name))
    assert lifecycle.schedule(name, None).schedule == ""  # no further one
    assert stack.ended(task_id)["state"]["type"] == "COMPLETED", stack.told(name)
    assert stack.server.ask(f"/flow_runs/{task_id}")["auto_scheduled"]
    with pytest.raises(SpecificationError, match="interval_minutes"):
        lifecycle.schedule(name, {"interval_minutes": -1})


def _runs_of(stack, name):
    of_it = {"deployments": {"id": {"any_": [stack.deployment(name)["id"]]}}, "sort": "EXPECTED_START_TIME_ASC"}
    return stack.server.ask("/flow_runs/filter", of_it)


def test_run_deployment__from_plain_python_with_overrides(stack, fields, name, tmp_path):
    from prefect.deployments import run_deployment

    stack.deploy_only(fields())
    service = {**stack.deployment(name)["parameters"]["service"], "output_path": str(tmp_path / "elsewhere")}
    flow_run = run_deployment(f"batch_service/{name}", parameters={"service": service}, timeout=150, poll_interval=0.5)
    assert flow_run.state.is_completed(), stack.log(str(flow_run.id))
    assert (tmp_path / "elsewhere" / f"infer-result-{flow_run.id}.manifest").is_file()
    assert overview.runs(name)[0].id == str(flow_run.id)


def test_secrets__are_resolved_in_the_model_server_only(stack, fields, name, tmp_path, package):
    from prefect.blocks.system import Secret

    block = "test-token"
    Secret(value=VALUE).save(block, overwrite=True)
    seen = tmp_path / "seen"
    script = (
        f'printf %s "$API_TOKEN" > {seen}\necho "the token is $API_TOKEN"\n'
        'inside=${DSN#*u:}; echo "parsed: ${inside%@*}."\n'
        'for found in $(grep -las "$API_TOKEN" /proc/[0-9]*/environ /proc/[0-9]*/cmdline); do\n'
        f"    tr '\\0' ' ' < ${{found%/*}}/cmdline >> {seen}.processes && echo >> {seen}.processes\ndone\n"
    )
    model = package()
    (model / "run.sh").write_text(script + (model / "run.sh").read_text())
    reference = f"{{{{ prefect.blocks.secret.{block} }}}}"
    environment = {"API_TOKEN": reference, "DSN": f"postgres://u:{reference}@h/db"}
    lifecycle.deploy(fields(model=str(model), environment=environment, runtime_log_output=True))
    done = stack.completed(name)
    assert seen.read_text() == VALUE
    holders = Path(f"{seen}.processes").read_text().splitlines()
    # The model server, and who looks: not its warden, not the flow, not the worker.
    assert holders
    assert [one for one in holders if not one.startswith(("sh ", "/bin/sh "))] == []

    of_run = {"flow_runs": {"id": {"any_": [done.last_run.id]}}}
    told = {
        "flow run": stack.server.ask(f"/flow_runs/{done.last_run.id}"),
        "task runs": stack.server.ask("/task_runs/filter", of_run),
        "artifacts": stack.server.ask("/artifacts/filter", of_run),
        "deployment": stack.deployment(name),
        "log": stack.log(done.last_run.id),
        "worker": stack.workers["public-cpu"].log.read_text(),
    }
    assert told["flow run"]["parameters"]["service"]["environment"] == environment
    assert told["task runs"] and told["artifacts"] and "the token is ***" in told["log"]
    assert "parsed: ***." in told["log"]
    told["collector"] = [one.body for one in stack.collector.received(service__name=name)]
    assert "the token is ***" in told["collector"] and "parsed: ***." in told["collector"]
    stored = Path(stack.environment["THRESHER_LOG_STORE"], name)
    assert "parsed: ***." in "".join(path.read_text() for path in stored.rglob("*.jsonl"))
    told |= {str(path): path.read_text() for path in stored.rglob("*.jsonl")}
    told |= {str(path): path.read_bytes().decode() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert [where for where, what in told.items() if VALUE in str(what)] == []


@pytest.mark.slow
@pytest.mark.prefect
@pytest.mark.xdist_group("lifecycle-sqlite")
def test_zombie__a_killed_run_becomes_crashed_and_its_slot_goes_to_the_higher_of_those_that_wait(
    sqlite_stack, fields, name, tmp_path, monkeypatch
):
    """Silent at the same time: a run that is to stop, which becomes Cancelled, and a form, which becomes Crashed."""
    gate = tmp_path / "gate"
    sqlite_stack.attend("one-at-a-time")
    other = f"{name[:50]}-other"
    stopping = lifecycle.deploy(fields(name=other, resource_pool="unattended")).last_run.id
    sqlite_stack.set_state(stopping, "RUNNING")
    with impatient(sqlite_stack, monkeypatch):
        first = lifecycle.deploy(fields({"a.bin": f"FAIL:until:{gate} "}, resource_pool="one-at-a-time")).last_run.id
        sqlite_stack.until(name, "Running")
        low = lifecycle.start(name).id
        high = lifecycle.start(name, {"priority": 3}).id
        with vanished(sqlite_stack, first):
            form = begun(sqlite_stack, "deploy_service")
            beat(sqlite_stack, form, "deploy_service")
            assert lifecycle.stop(other).status == "Stopping"
            assert overview.runs(name)[0].id == high
        ended = {one: sqlite_stack.ended(one)["state"] for one in (first, form, stopping)}
    assert [one["type"] for one in ended.values()] == ["CRASHED", "CRASHED", "CANCELLED"]
    assert all("vanished" in one["message"] for one in ended.values())
    assert overview.show(other).status == "Stopped"

    def has_begun() -> bool:
        return sqlite_stack.server.ask(f"/flow_runs/{high}")["state_type"] in ("PENDING", "RUNNING")

    processes.poll(has_begun, lambda: sqlite_stack.told(name))
    assert sqlite_stack.server.ask(f"/flow_runs/{low}")["state_type"] == "SCHEDULED"
    sqlite_stack.set_state(low, "CANCELLED")
    gate.touch()
    assert sqlite_stack.ended(high)["state"]["type"] == "COMPLETED", sqlite_stack.told(name)
    statuses = {one.id: one.status for one in overview.runs(name)}
    assert statuses == {first: "Failed", low: "Stopped", high: "Completed"}
    assert processes.alive(sqlite_stack.attend("one-at-a-time").process.pid)


@pytest.mark.slow
@pytest.mark.prefect
@pytest.mark.xdist_group("lifecycle-sqlite")
def test_delete__by_force_gives_up_a_run_that_nobody_ends_and_says_so(sqlite_stack, fields, name, monkeypatch, capsys):
    monkeypatch.setattr(lifecycle, "ENDED_SECONDS", 1.0)
    task_id = lifecycle.deploy(fields(resource_pool="unattended")).last_run.id
    sqlite_stack.set_state(task_id, "RUNNING")
    with pytest.raises(ServerError, match="have not ended within 1 s"):
        lifecycle.stop(name, wait=True)
    delete(name, force=True)
    state = sqlite_stack.server.ask(f"/flow_runs/{task_id}")["state"]
    assert f"Run {task_id} did not end in time" in capsys.readouterr().err
    assert state["type"] == "CANCELLED" and "Given up by thresher delete --force" in state["message"]
    with pytest.raises(SpecificationError, match="there is no such service"):
        overview.show(name)


@pytest.mark.slow
@pytest.mark.prefect
@pytest.mark.xdist_group("lifecycle-sqlite")
def test_orphans__are_ended_however_many_there_are(sqlite_stack, monkeypatch):
    monkeypatch.setattr(api, "_PAGE", 2)
    gone = [begun(sqlite_stack, "batch_service", worker="gone one") for _ in range(5)]
    other = begun(sqlite_stack, "batch_service", worker="another")
    asyncio.run(end_orphans("gone "))
    assert {sqlite_stack.server.ask(f"/flow_runs/{one}")["state"]["type"] for one in gone} == {"CRASHED"}
    assert sqlite_stack.server.ask(f"/flow_runs/{other}")["state"]["type"] == "RUNNING"
    asyncio.run(end_orphans("another"))


@contextmanager
def impatient(stack, monkeypatch) -> Iterator[None]:
    """While it lasts, the server's automations act after the shortest silence that is allowed.

    An automation that is changed forgets what it has heard, so runs are begun within.
    """
    monkeypatch.setenv("THRESHER_ZOMBIE_SECONDS", "35")
    apply_pools(stack.pools)
    try:
        yield
    finally:
        monkeypatch.delenv("THRESHER_ZOMBIE_SECONDS")
        apply_pools(stack.pools)


def begun(stack, flow: str, worker: str = "") -> str:
    """A flow run that the server takes for running, and that no process runs."""
    flow_id = stack.server.ask("/flows/", {"name": flow})["id"]
    labels = {"prefect.worker.name": worker} if worker else {}
    body = {"flow_id": flow_id, "state": {"type": "RUNNING"}, "labels": labels}
    return str(stack.server.ask("/flow_runs/", body)["id"])


def beat(stack, task_id: str, flow: str) -> None:
    """The sign of life that the process of a flow run gives."""
    event = {
        "event": "prefect.flow-run.heartbeat",
        "id": str(uuid.uuid4()),
        "occurred": datetime.now(UTC).isoformat(),
        "resource": {"prefect.resource.id": f"prefect.flow-run.{task_id}"},
        "related": [
            {"prefect.resource.id": "prefect.flow.any", "prefect.resource.role": "flow", "prefect.resource.name": flow}
        ],
    }
    stack.server.ask("/events", [event])
