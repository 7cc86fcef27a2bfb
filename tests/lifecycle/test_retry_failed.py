"""Runs of the FAILED items of a service's earlier runs, against real servers and workers."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest

from deployments.services import lifecycle, overview
from tasks.domain.errors import SpecificationError
from tasks.domain.status import RunReport


def refusal(run: str, **options: object) -> str:
    with pytest.raises(SpecificationError) as refused:
        lifecycle.retry_failed(run, **options)
    (problem,) = refused.value.problems
    return str(problem)


def test_retry_failed__runs_exactly_these_items_with_the_fields_of_the_earlier_run(
    stack, fields, name, tmp_path, manifest, write_files
):
    items = {"a.bin": b"a", "sub/b.bin": b"FAIL:404", "c.bin": b"FAIL:404"}
    lifecycle.deploy(fields({"never.bin": b"x"}, resource_pool="unattended"))
    other = write_files(tmp_path / "other", items)
    first = lifecycle.start(name, {"input_path": str(other), "output_path": f"{tmp_path}/o/{{task_id}}"}).id
    assert stack.execute(first)["state"]["type"] == "COMPLETED", stack.told(name)
    lifecycle.edit(name, description="edited since")

    write_files(other, {"sub/b.bin": b"good"})
    begun = lifecycle.retry_failed(first)
    assert begun.service == name
    ended = stack.execute(begun.id)
    assert ended["state"]["type"] == "COMPLETED", stack.told(name)
    given = ended["parameters"]["service"]
    assert (given["input_path"], given["description"]) == (str(other), "edited since")
    run = overview.show(name).last_run
    assert (run.id, run.items, run.done, run.failed) == (begun.id, 2, 2, 1)
    assert run.manifest == f"{tmp_path}/o/{begun.id}/infer-result-{begun.id}.manifest"
    lines = manifest(run.manifest)
    assert [(one["source"], one["result"]) for one in lines] == [
        (f"{other}/c.bin", "FAILED"), (f"{other}/sub/b.bin", "SUCCESSFUL"),
    ]  # fmt: skip
    assert lines[1]["inference-loc"].endswith(f"infer-result-{begun.id}/sub/b.bin_result.txt")


def test_retry_failed__by_command_merges_into_another_folder(
    stack, thresher, command_here, fields, name, tmp_path, manifest, write_files
):
    with stack.paused():
        begun = lifecycle.deploy(fields({"a.bin": b"a", "b.bin": b"FAIL:404", "c.bin": b"c"})).last_run
        assert stack.execute(begun.id)["state"]["type"] == "COMPLETED", stack.told(name)
    first = overview.show(name).last_run
    write_files(tmp_path / "in", {"b.bin": b"good"})
    ran = thresher(
        *("retry-failed", first.id, "--merge", "--output", "merged", "--set", "max_concurrency=1", "--wait"),
        env=stack.environment,
    )
    assert ran.returncode == 0, ran.stderr
    assert f"Started {name}" in ran.stderr and "Traceback" not in ran.stderr
    lines = manifest(ran.stdout.strip())
    assert Path(ran.stdout.strip()).parent == tmp_path / "merged"
    assert lines[::2] == manifest(first.manifest)[::2]
    assert [one["result"] for one in lines] == ["SUCCESSFUL"] * 3
    last = overview.show(name).last_run
    counts = json.loads(Path(last.summary).read_bytes())["items"]
    assert counts == {"planned": 3, "successful": 3, "failed": 0, "not_processed": 0}
    assert overview.show(name).output_path == str(tmp_path / "out")

    again = command_here("retry-failed", last.id)
    assert (again.returncode, again.stdout) == (2, "") and "no item is FAILED in it" in again.stderr
    assert len(overview.runs(name)) == 2


def test_retry_failed__is_refused_for_a_run_that_is_active_or_has_nothing_to_retry(stack, fields, name):
    first = lifecycle.deploy(fields(resource_pool="unattended")).last_run.id
    active = lifecycle.start(name).id
    stack.set_state(active, "RUNNING")
    stack.server.ask(f"/flow_runs/{active}/labels", RunReport(phase="inferring").labels(), "PATCH")
    assert "is still active (its status is Running)" in refusal(active)
    assert stack.execute(first)["state"]["type"] == "COMPLETED", stack.told(name)
    assert "no item is FAILED in it" in refusal(first)
    manifests = {one.id: one.manifest for one in overview.runs(name)}
    Path(manifests[first]).unlink()
    assert "there is no such output manifest" in refusal(first)
    stack.set_state(active, "FAILED")
    assert "has published no output manifest (its status is Failed)" in refusal(active)
    assert "there is no such run on this server" in refusal(str(uuid.uuid4()))
    assert "should be the id of a run" in refusal(name)


def test_deadline__ends_a_run_of_a_service_as_failed_with_a_complete_manifest(stack, fields, name, manifest):
    hanging = fields(
        {"a.bin": b"FAIL:hang a", "b.bin": b"FAIL:hang b"}, deadline_minutes=0.1, resource_pool="unattended"
    )
    stack.execute(lifecycle.deploy(hanging).last_run.id)
    ended = overview.show(name)
    assert ended.status == "Failed"
    said = "The run was stopped early because its deadline (0.1 minutes) had passed."
    assert said in ended.last_run.message, stack.told(name)
    assert {one["error_message"] for one in manifest(ended.last_run.manifest)} == {f"Not processed: t{said[1:]}"}
