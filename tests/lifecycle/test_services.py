"""The life of services against real servers and workers: deployed, listed, edited, started again, stopped, deleted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import processes

from deployments.services import lifecycle, overview
from tasks.domain.errors import SpecificationError


def test_service__deployed_twice_at_once_is_one_and_two_runs_of_it_do_not_disturb_each_other(
    every_stack, fields, name, tmp_path, manifest
):
    gate = tmp_path / "gate"
    items = {"a.bin": b"a", "sub/b.bin": f"FAIL:until:{gate} "}

    async def both() -> list[Any]:
        outputs = [str(tmp_path / f"out{number}") for number in (1, 2)]
        work = [lifecycle.deploy(fields(items, output_path=one, description="first words")) for one in outputs]
        return await asyncio.gather(*work, return_exceptions=True)

    found = asyncio.run(both())
    refused = [one for one in found if isinstance(one, Exception)]
    (made,) = (one for one in found if not isinstance(one, Exception))
    assert len(refused) == 1, found
    assert isinstance(refused[0], SpecificationError) and "a service of this name exists" in str(refused[0])
    assert (made.name, made.status, made.resource_pool, made.description) == (
        name, "Deploying", "public-cpu", "first words",
    )  # fmt: skip
    assert [one.id for one in overview.runs(name)] == [made.last_run.id]

    second = lifecycle.start(name).id
    processes.poll(
        lambda: {one.status for one in overview.runs(name)} == {"Running"}, lambda: every_stack.told(name), 120
    )
    gate.touch()
    for task_id in (made.last_run.id, second):
        assert every_stack.ended(task_id)["state"]["type"] == "COMPLETED", every_stack.told(name)
        lines = manifest(str(Path(made.output_path) / f"infer-result-{task_id}.manifest"))
        assert [one["result"] for one in lines] == ["SUCCESSFUL"] * 2
        assert all(f"infer-result-{task_id}/" in one["inference-loc"] for one in lines)
    done = every_stack.completed(name)
    assert (done.id, done.output_path, done.last_run.id) == (made.id, made.output_path, second)
    assert (done.last_run.items, done.last_run.done, done.last_run.failed) == (2, 2, 0)
    assert second in done.last_run.manifest and Path(done.last_run.summary).is_file()
    listed = {one.name: one for one in overview.list_services()}
    assert listed[name] == done

    edited = lifecycle.edit(name, description="other words")
    assert edited.description == overview.show(name).description == "other words"
    assert every_stack.deployment(name)["parameters"]["service"]["description"] == "other words"
    with pytest.raises(SpecificationError, match="no run that could be stopped"):
        lifecycle.stop(name)


def test_start__overrides_hold_for_that_run_only(stack, fields, name, tmp_path):
    lifecycle.deploy(fields(resource_pool="unattended", environment={"A": "1", "B": "2"}))
    begun = lifecycle.start(name, [f"output_path={tmp_path}/elsewhere", "environment.A=9"])
    ended = stack.execute(begun.id)
    assert ended["state"]["type"] == "COMPLETED", stack.told(name)
    assert ended["parameters"]["service"]["environment"] == {"A": "9", "B": "2"}
    assert (tmp_path / "elsewhere" / f"infer-result-{begun.id}.manifest").is_file()
    assert overview.show(name).output_path == str(tmp_path / "out")
    assert stack.deployment(name)["parameters"]["service"]["environment"] == {"A": "1", "B": "2"}
    assert overview.runs(name)[0].id == begun.id and len(overview.runs(name)) == 2
    with pytest.raises(SpecificationError) as refused:
        lifecycle.start(name, {"name": "another", "resource_pool": "one-at-a-time"})
    assert {one.field for one in refused.value.problems} == {"name", "resource_pool"}
    assert len(overview.runs(name)) == 2


def test_stop__ends_the_instances_and_accounts_for_every_item(
    stack, fields, name, tmp_path, package, manifest, processes_of, session_folder
):
    mark = str(tmp_path / "counts")
    names = [f"{number:02}.bin" for number in range(30)]
    items = {one: b"x" if number < 5 else f"FAIL:until:{tmp_path}/never {one}" for number, one in enumerate(names)}
    model = str(package("--state", mark))
    lifecycle.deploy(fields(items, model=model, instances=2))
    processes.poll(lambda: overview.show(name).last_run.done >= 5, lambda: stack.told(name))
    assert stack.status(name) == "Running"
    assert any(mark in one for one in processes_of(session_folder).values())

    assert lifecycle.stop(name).status in ("Stopping", "Stopped")
    stopped = stack.until(name, "Stopped", stay=("Stopping",))
    assert stopped.last_run.manifest, stack.told(name)
    lines = manifest(stopped.last_run.manifest)
    assert [Path(one["source"]).name for one in lines] == names
    assert [one["result"] for one in lines] == ["SUCCESSFUL"] * 5 + ["FAILED"] * 25
    assert {one["error_message"] for one in lines[5:]} == {"The run was stopped before it was processed."}
    processes.poll(lambda: not any(mark in one for one in processes_of(session_folder).values()), "no instance is left")
    with pytest.raises(SpecificationError, match="no run that could be stopped"):
        lifecycle.stop(name)


def test_delete__of_a_running_service_wants_force_and_stops_it_first(stack, fields, name, tmp_path):
    task_id = lifecycle.deploy(fields({"a.bin": f"FAIL:until:{tmp_path}/never "})).last_run.id
    stack.until(name, "Running")
    with pytest.raises(SpecificationError, match="stop it first, or use --force"):
        lifecycle.delete(name)
    lifecycle.delete(name, force=True)
    assert stack.ended(task_id)["state"]["type"] == "CANCELLED"
    assert (tmp_path / "out" / f"infer-result-{task_id}.manifest").is_file()
    with pytest.raises(SpecificationError, match="there is no such service"):
        overview.show(name)


def test_deploy__a_wrong_specification_creates_nothing(stack, fields, name):
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"resource_pool": "no-such-pool"}, "contact the administrator.*public-cpu"),
        ({"flavor": "cpu-77"}, "cpu-77.*cpu-1"),
        ({"description": "x" * 101}, "description"),
        ({"description": "a < b"}, "description"),
    ]
    for other, message in wrong:
        with pytest.raises(SpecificationError, match=f"(?s){message}"):
            lifecycle.deploy(fields(**other))
    with pytest.raises(SpecificationError, match="input_path"):
        asyncio.run(lifecycle.create(fields(input_path="in")))
    with pytest.raises(SpecificationError, match="there is no such service"):
        overview.show(name)


def test_deploy__a_name_that_exists_and_one_service_too_many_are_refused(stack, fields, name, monkeypatch):
    lifecycle.deploy(fields(resource_pool="unattended"))
    with pytest.raises(SpecificationError, match="a service of this name exists"):
        lifecycle.deploy(fields())
    monkeypatch.setenv("THRESHER_MAX_SERVICES", "1")
    with pytest.raises(SpecificationError, match=r"1 services already.*delete one"):
        lifecycle.deploy(fields(name="one-too-many"))
    for wrong in ("x" * 101, 'a "quoted" word', "a & b"):
        with pytest.raises(SpecificationError, match="description"):
            lifecycle.edit(name, description=wrong)
    assert overview.show(name).description == "" and len(overview.runs(name)) == 1


def test_status__deploying_running_concerning_completed(
    stack, fields, name, tmp_path, package: Callable[..., Path], manifest, command_here
):
    healthy, gate = tmp_path / "healthy", tmp_path / "gate"
    items = {"a.bin": f"FAIL:until:{gate} ", "b.bin": b"FAIL:die:1"}
    model = package("--health-when", str(healthy), "--state", str(tmp_path / "counts"))
    (model / "run.sh").write_text("echo a line of its own\n" + (model / "run.sh").read_text())
    lifecycle.deploy(fields(items, model=str(model), max_concurrency=1))

    def phase() -> Any:
        return stack.server.ask(f"/flow_runs/{overview.show(name).last_run.id}")["labels"].get("thresher.phase")

    processes.poll(lambda: phase() == "preparing", lambda: stack.told(name))
    assert stack.status(name) == "Deploying"
    healthy.touch()
    stack.until(name, "Running", stay=("Deploying",))
    healthy.unlink()
    gate.touch()
    stack.until(name, "Concerning", stay=("Running",))
    healthy.touch()
    done = stack.until(name, "Completed", stay=("Concerning", "Running"))
    assert [one["result"] for one in manifest(done.last_run.manifest)] == ["SUCCESSFUL"] * 2

    # Its output is in the Logs tab only, without runtime_log_output.
    processes.poll(lambda: "a line of its own" in stack.log(done.last_run.id), lambda: stack.told(name))
    ran = command_here("logs", name, "--store", "--json")
    assert ran.returncode == 2 and "runtime_log_output" in ran.stderr
    assert not Path(stack.environment["THRESHER_LOG_STORE"], name).exists()
    assert stack.collector.received(service__name=name) == []
