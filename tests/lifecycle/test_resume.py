"""Resuming runs of services: those whose process has vanished, and those that ended before they had published."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest
from fakes import processes
from fakes.model_behaviour import item_key
from fakes.reports import report_at
from lifecycle.support import vanished

from deployments.services import lifecycle, overview
from tasks.domain.errors import SpecificationError


@pytest.mark.slow
@pytest.mark.prefect
@pytest.mark.xdist_group("lifecycle-sqlite")
def test_resume__a_run_whose_process_has_vanished_goes_on_under_its_id(
    sqlite_stack, fields, name, tmp_path, model, manifest
):
    gate = tmp_path / "gate"
    good = {f"{number}.bin": f"{tmp_path.name} {number}" for number in range(3)}
    items = {**good, "9.bin": f"FAIL:until:{gate} {tmp_path.name}"}
    sqlite_stack.attend("one-at-a-time")
    task_id = lifecycle.deploy(fields(items, resource_pool="one-at-a-time")).last_run.id
    sqlite_stack.until(name, "Running")

    def reported() -> bool:
        files = [
            path for path in (tmp_path / "out" / f".infer-result-{task_id}").rglob("*.parquet")
            if "plan" not in str(path.relative_to(tmp_path))
        ]  # fmt: skip
        return sum(len(report_at(path)[0]) for path in files) == len(good)

    processes.poll(reported, lambda: sqlite_stack.told(name))
    with pytest.raises(SpecificationError, match="is active, its process is alive on this machine"):
        lifecycle.resume(name, task_id)
    with vanished(sqlite_stack, task_id):
        gate.touch()
        assert lifecycle.resume(name, task_id).id == task_id
        with pytest.raises(SpecificationError, match="waits to be begun"):
            lifecycle.resume(name, task_id)
    ended = sqlite_stack.ended(task_id)
    assert ended["state"]["type"] == "COMPLETED", sqlite_stack.told(name)
    (run,) = overview.runs(name)
    assert (run.id, run.items, run.done, run.failed) == (task_id, 4, 4, 0)
    assert [one["result"] for one in manifest(run.manifest)] == ["SUCCESSFUL"] * 4
    seen = model.stats()["items"]
    assert [seen[item_key(text.encode())] for text in good.values()] == [1, 1, 1]

    with pytest.raises(SpecificationError, match=f"nothing to resume; `thresher retry-failed {task_id}`"):
        lifecycle.resume(name, task_id)


def test_resume__by_command_a_run_that_was_cancelled_before_it_began(stack, fields, name, tmp_path, thresher):
    with stack.paused():
        cancelled = lifecycle.deploy(fields(description="resumed")).last_run.id
        stack.set_state(cancelled, "CANCELLED")
    ran = thresher(
        *("start", name, "--resume", cancelled, "--wait", "--set", "max_concurrency=3"), env=stack.environment
    )
    assert (ran.returncode, Path(ran.stdout.strip()).name) == (0, f"infer-result-{cancelled}.manifest"), ran.stderr
    assert f"Resumed {cancelled} of {name}" in ran.stderr and "Traceback" not in ran.stderr
    parameters = stack.server.ask(f"/flow_runs/{cancelled}")["parameters"]["service"]
    assert (parameters["max_concurrency"], parameters["description"]) == (3, "resumed")


def test_resume__a_run_that_crashed_and_refusals(stack, fields, name, tmp_path, command_here):
    first = lifecycle.deploy(fields(resource_pool="unattended")).last_run.id
    assert stack.execute(first)["state"]["type"] == "COMPLETED", stack.told(name)
    foreign = lifecycle.deploy(fields(name=f"{name[:50]}-other", resource_pool="unattended")).last_run.id
    stack.set_state(foreign, "CANCELLED")
    crashed = lifecycle.start(name).id
    stack.set_state(crashed, "CRASHED")
    elsewhere = f"output_path={tmp_path}/elsewhere"
    refusals = [
        (("nonsense",), "should be the id of a run"),
        ((str(uuid.uuid4()),), f"there is no such run of {name}; `thresher show {name} --runs`"),
        ((foreign,), f"is not a run of {name}"),
        ((first,), "there is nothing to resume"),
        ((crashed, "--set", elsewhere), "what it has done is found by that"),
    ]
    for given, said in refusals:
        ran = command_here("start", name, "--resume", *given)
        assert (ran.returncode, ran.stdout) == (2, "") and said in ran.stderr, ran.stderr
    ran = command_here("start", name, "--resume", crashed, "--json")
    assert ran.returncode == 0 and json.loads(ran.stdout)["status"] == "Deploying", ran.stderr
    assert stack.execute(crashed)["state"]["type"] == "COMPLETED", stack.told(name)
    assert overview.show(name).status == "Completed"
    assert (tmp_path / "out" / f"infer-result-{crashed}.manifest").is_file()


@pytest.mark.slow
@pytest.mark.prefect
@pytest.mark.xdist_group("lifecycle-sqlite")
def test_resume__a_run_on_another_machine_is_active_until_it_was_not_heard_of_for_long(
    sqlite_stack, fields, name, monkeypatch
):
    from tasks.domain.status import PROCESS_LABEL

    run = lifecycle.deploy(fields(resource_pool="unattended")).last_run.id
    sqlite_stack.set_state(run, "RUNNING")
    sqlite_stack.server.ask(f"/flow_runs/{run}/labels", {PROCESS_LABEL: "elsewhere:pid/1/1"}, "PATCH")
    monkeypatch.setenv("THRESHER_ZOMBIE_SECONDS", "3600")
    with pytest.raises(SpecificationError, match=r"is active: it was heard of \d+ s ago.*not heard of for 3600 s"):
        lifecycle.resume(name, run)
    monkeypatch.setattr("deployments.services.resuming.silence_seconds", lambda: 0)
    assert lifecycle.resume(name, run).id == run
    assert sqlite_stack.execute(run)["state"]["type"] == "COMPLETED", sqlite_stack.told(name)
