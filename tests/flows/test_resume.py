"""The same flow run tried again: it goes on where it was, ends as it ended, or says why it cannot go on."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fakes.model_behaviour import item_key
from fakes.model_server import FakeModelServer
from fakes.processes import die_with_parent, poll

from tasks.domain.errors import SpecificationError, StorageError
from tasks.domain.run import RunFailed
from tasks.domain.service import BatchService

pytestmark = pytest.mark.prefect

UNKNOWN = "00000000-0000-4000-8000-000000000000"
NOT_RESUMED = "cannot be resumed: what follows has changed. Put it back and resume again, or start a new run"


@contextmanager
def full_disk(part: str) -> Iterator[None]:
    """While it lasts, files whose path ends like this cannot be written."""
    real = os.replace

    def replace(old: Any, new: Any, *rest: Any, **named: Any) -> None:
        if str(new).endswith(part):
            raise OSError(28, "No space left on device")
        real(old, new, *rest, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", replace)
        yield


def sent(model: FakeModelServer) -> int:
    return int(model.stats()["requests"].get("/", 0))


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# -- what has changed -----------------------------------------------------------------------------------------------


@pytest.fixture
def unpublished(
    run_service: Any, package: Any, tmp_path: Path, write_files: Any
) -> tuple[Any, dict[str, Any], Callable[..., Any]]:
    """A run of a package over a manifest that has done everything but publish, its fields, and how to try it again."""
    folder = write_files(tmp_path / "in", {f"{number}.jpg": f"unpublished {number}" for number in range(4)})
    manifest = tmp_path / "some.manifest"
    manifest.write_text("".join(json.dumps({"source": str(path)}) + "\n" for path in sorted(folder.iterdir())))
    fields = {"name": "tested", "model": str(package()), "input_path": str(manifest), "request_path": "/"}
    with full_disk(".summary.json"):
        first = run_service(**fields)
    assert (first.state, type(first.error)) == ("Failed", StorageError)
    return first, fields, lambda **others: run_service(again=first.task_id, **{**fields, **others})


def test_resume__is_refused_as_long_as_a_file_or_a_field_has_changed(unpublished: Any, tmp_path: Path) -> None:
    first, fields, again = unpublished
    package = Path(fields["model"])
    config, code = package / "config.json", package / "run.sh"
    scratch = tree(tmp_path / "out")
    for what, path, other in (
        ("input manifest", tmp_path / "some.manifest", b'{"source": "/other"}\n'),
        ("package files", package / "weights.bin", b"other"),
        ("package code", code, code.read_bytes().replace(b"exec ", b"exec\t")),
        ("config.json", config, json.dumps({**json.loads(config.read_bytes()), "metrics": "others"}).encode()),
    ):
        before = path.read_bytes() if path.exists() else None
        path.write_bytes(other)
        refused = again()
        assert (refused.state, type(refused.error)) == ("Failed", SpecificationError)
        message = str(refused.error)
        assert f"run {first.task_id}: {NOT_RESUMED}" in message
        # The configuration is one of the package's files.
        assert {one.field for one in refused.error.problems[1:]} == {what} | (
            {"package files"} if what == "config.json" else set()
        )
        assert re.search(rf"{what} = '.+': was '.+' when run {first.task_id} began", message)
        assert tree(tmp_path / "out") == scratch
        if before is None:
            path.unlink()
        else:
            path.write_bytes(before)
    refused = again(request_path="/echo", csv_header="present")
    assert (refused.state, type(refused.error)) == ("Failed", SpecificationError)
    assert [one.field for one in refused.error.problems[1:]] == ["request_path", "mapping", "csv_header"]

    second = again(environment={"A": "1"}, max_concurrency=3, timeout_minutes=5, error_threshold=0.5)
    assert (second.state, second.task_id) == ("Completed", first.task_id), second.error
    assert len(second.lines) == 4


def test_resume__is_refused_when_there_is_a_newer_version_of_the_model(
    run_service: Any, package: Any, tmp_path: Path, write_files: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deployments.models.versions import register

    monkeypatch.setenv("THRESHER_MODEL_STORE", str(tmp_path / "store"))
    home = package()
    source = write_files(tmp_path / "in", {"1.jpg": "version"})

    assert register(home, "package", "0.0.1").state == "Normal"
    fields = {"name": "tested", "model": "package", "input_path": str(source), "request_path": "/"}
    with full_disk(".summary.json"):
        first = run_service(**fields)
    assert first.state == "Failed"
    assert register(home, "package", "0.0.2").state == "Normal"
    refused = run_service(again=first.task_id, **fields)
    assert "model_version = '0.0.2': was '0.0.1' when" in str(refused.error)
    done = run_service(again=first.task_id, **fields, model_version="0.0.1")
    assert done.state == "Completed"
    assert (done.summary["model"]["version"], len(done.summary["model"]["content"])) == ("0.0.1", 64)
    assert done.ask(f"/flow_runs/{done.task_id}")["labels"]["thresher.model_version"] == "0.0.1"


def test_plan__that_is_none_is_told_without_a_trace(unpublished: Any, tmp_path: Path) -> None:
    first, _, again = unpublished
    (tmp_path / "out" / f".infer-result-{first.task_id}" / "plan.json").write_text("{")
    second = again()
    assert (second.state, type(second.error)) == ("Failed", StorageError)
    assert "plan.json is no plan (it is cut, or was not written by this version of Thresher): remove" in str(
        second.error
    )
    assert "Traceback" not in "".join(second.logs)


# -- published already ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["infer-result-{task_id}", "infer-result"])
def test_run__that_is_complete_and_tried_again_ends_as_it_ended(
    run_service: Any, running: dict[str, str], model: FakeModelServer, tmp_path: Path, write_files: Any, layout: str
) -> None:
    items = {"1.jpg": "published", "2.jpg": "published FAIL:404"}
    fields = {"input_path": str(write_files(tmp_path / "in", items)), "name": "tested", **running}
    first = run_service(**fields, result_folder=layout)
    assert first.state == "Completed"
    before, written = sent(model), tree(tmp_path / "out")
    (tmp_path / "in" / "3.jpg").write_text("came later")
    second = run_service(again=first.task_id, **fields, result_folder=layout)
    assert (second.state, second.result) == ("Completed", first.result)
    assert sent(model) == before and tree(tmp_path / "out") == written
    labels = second.ask(f"/flow_runs/{first.task_id}")["labels"]
    assert [labels[f"thresher.{name}"] for name in ("phase", "items", "done", "failed")] == ["done", 2, 2, 1]
    assert labels["thresher.manifest"] == first.result.manifest


def test_run__that_is_failed_as_a_whole_and_tried_again_fails_again(
    run_service: Any, running: dict[str, str], model: FakeModelServer, tmp_path: Path, write_files: Any
) -> None:
    source = write_files(tmp_path / "in", {"1.jpg": "all bad FAIL:404"})
    first = run_service(input_path=str(source), name="tested", **running)
    before, written = sent(model), tree(tmp_path / "out")
    second = run_service(again=first.task_id, input_path=str(source), name="tested", **running)
    assert (second.state, type(second.error), str(second.error)) == ("Failed", RunFailed, str(first.error))
    assert second.result == first.result
    assert sent(model) == before and tree(tmp_path / "out") == written


def test_run__that_was_stopped_and_tried_again_is_stopped(
    run_service: Any, running: dict[str, str], tmp_path: Path, write_files: Any
) -> None:
    source = write_files(tmp_path / "in", {"1.jpg": "x", "2.jpg": "y"})
    first = run_service(input_path=str(source), name="tested", **running)
    path = Path(first.result.summary)
    path.write_text(json.dumps({**json.loads(path.read_text()), "stopped": True}))
    second = run_service(again=first.task_id, input_path=str(source), name="tested", **running)
    assert second.state == "Cancelled"
    path.unlink()
    third = run_service(again=first.task_id, input_path=str(source), name="tested", **running)
    assert type(third.error) is StorageError and "has published" in str(third.error)


def test_run__that_died_between_its_manifest_and_its_end_ends_as_published(
    run_service: Any, running: dict[str, str], tmp_path: Path, write_files: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.clients.storage.output_folder import OutputFolder

    async def die(folder: OutputFolder) -> None:
        raise RuntimeError("the machine goes down")

    source = write_files(tmp_path / "in", {"1.jpg": "x"})
    with monkeypatch.context() as patch:
        patch.setattr(OutputFolder, "remove_scratch", die)
        first = run_service(input_path=str(source), name="tested", **running)
    assert first.state == "Failed" and ".infer-result-{id}" in first.top
    written = first.manifest
    second = run_service(again=first.task_id, input_path=str(source), name="tested", **running)
    assert (second.state, second.manifest) == ("Completed", written)
    assert second.top == ["infer-result-{id}", "infer-result-{id}.manifest", "infer-result-{id}.summary.json"]


# -- retries of Prefect ---------------------------------------------------------------------------------------------


def test_retry__by_prefect_in_the_same_process_repeats_nothing_that_was_finished(
    prefect_server: str, running: dict[str, str], model: FakeModelServer, tmp_path: Path, write_files: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from flows.batch_service import batch_service
    from tasks.clients.storage.output_folder import OutputFolder

    source = write_files(tmp_path / "in", {f"{number}.jpg": f"retried {number}" for number in range(5)})
    service = BatchService(name="tested", input_path=str(source), output_path=str(tmp_path / "out"), **running)
    before = sent(model)
    real = OutputFolder.write
    tries = []

    async def write(folder: OutputFolder, relative: str, data: bytes) -> None:
        if relative.endswith(".summary.json"):
            tries.append(relative)
            if len(tries) == 1:
                raise OSError(28, "No space left on device")
        await real(folder, relative, data)

    monkeypatch.setattr(OutputFolder, "write", write)
    state = batch_service.with_options(retries=1)(service, return_state=True)
    result = asyncio.run(state.aresult())
    assert (state.name, len(tries), len(set(tries))) == ("Completed", 2, 1)
    assert (result.items, result.successful) == (5, 5)
    assert sent(model) == before + 5


# -- killed, and gone on with by command ----------------------------------------------------------------------------

ITEMS = 60
GOOD = 30
NAMES = [f"{number:03}.jpg" for number in range(ITEMS)]


@dataclass
class Halfway:
    """A real `thresher run` that has reported a part of its items, and waits for the answers to the others."""

    process: subprocess.Popen[str]
    task_id: str
    env: dict[str, str]
    keys: dict[str, str]
    spec: Path
    gate: Path

    def kill(self) -> None:
        """Kill it with signal 9; whoever sends the others again is answered."""
        self.process.kill()
        self.process.communicate()
        self.gate.touch()


@pytest.fixture
def halfway(
    thresher: Any, running: dict[str, str], tmp_path: Path, write_files: Any, prefect_server: str
) -> Iterator[Callable[..., Halfway]]:
    """Starts one, on its embedded server or on this worker's."""
    gate = tmp_path / "gate"
    texts = {
        name: f"{tmp_path.name} {name}" + (f" FAIL:until:{gate} " if name in NAMES[GOOD:] else "") for name in NAMES
    }
    write_files(tmp_path / "in", texts)
    spec = tmp_path / "spec.yaml"
    spec.write_text(json.dumps({"name": "cli", **running, "input_path": "in", "output_path": "out"}))
    keys = {name: item_key(text.encode()) for name, text in texts.items()}
    begun: list[subprocess.Popen[str]] = []

    def begin(*, embedded: bool) -> Halfway:
        env = {"THRESHER_REPORT_SECONDS": "0.2", **({} if embedded else {"PREFECT_API_URL": prefect_server})}
        process = subprocess.Popen(
            thresher.command(["run", spec]), cwd=tmp_path, env=thresher.environment(env), text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=die_with_parent,
        )  # fmt: skip
        begun.append(process)

        def reported() -> bool:
            from fakes.reports import report_at

            assert process.poll() is None, process.communicate()
            names = [
                outcome.number
                for path in tmp_path.glob("out/.infer-result-*/**/*.parquet")
                if "plan" not in str(path.relative_to(tmp_path))
                for outcome in report_at(path)[0]
            ]
            return len(names) == GOOD

        poll(reported, "the partial reports", seconds=180)
        (scratch,) = (tmp_path / "out").glob(".infer-result-*")
        return Halfway(process, scratch.name.removeprefix(".infer-result-"), env, keys, spec, gate)

    yield begin
    for process in begun:
        process.kill()
        process.communicate()


def why_not(run: str, spec: Path, *overrides: str) -> str:
    """Why `thresher run` does not go on with a run, as it learns from this worker's server before it begins."""
    from prefect.client.orchestration import get_client

    from deployments.one_run.run import _resumed
    from deployments.services.specification import read_specification

    fields = read_specification(spec, [*overrides])

    async def ask() -> None:
        async with get_client() as client:
            await _resumed(client, run, fields, BatchService(**fields))

    with pytest.raises(SpecificationError) as refused:
        asyncio.run(ask())
    return str(refused.value)


def sent_again(one: Halfway, model: FakeModelServer, before: dict[str, int]) -> set[str]:
    """Names of the items that the model server was asked for again since."""
    now = model.stats()["items"]
    return {name for name, key in one.keys.items() if now.get(key, 0) > before.get(key, 0)}


@pytest.mark.slow
def test_run__that_is_alive_is_not_resumed_and_once_killed_ends_like_one_that_was_not(
    halfway: Any, thresher: Any, model: FakeModelServer, tmp_path: Path
) -> None:
    one = halfway(embedded=False)
    task_id, spec, out = one.task_id, one.spec, tmp_path / "out"
    alive = thresher("run", spec, "--resume", task_id, env=one.env)
    assert (alive.returncode, alive.stdout) == (2, ""), alive.stderr
    assert "is active" in alive.stderr and "Traceback" not in alive.stderr
    one.kill()
    before = tree(out)
    assert "should be the id of a run" in why_not("nonsense", spec)
    assert "there is no such run on this Prefect server" in why_not(UNKNOWN, spec)
    assert "what it has done is found by that" in why_not(task_id, spec, "output_path=elsewhere")
    assert tree(out) == before and not (tmp_path / "elsewhere").exists()
    seen = model.stats()["items"]
    assert [seen[one.keys[name]] for name in NAMES[:GOOD]] == [1] * GOOD

    fresh = thresher("run", spec, "--json", env=one.env)
    assert fresh.returncode == 0, fresh.stderr
    assert f"`thresher run {spec} --resume {task_id}` goes on with it" in fresh.stderr
    seen = model.stats()["items"]
    ran = thresher("run", spec, "--resume", task_id, "--set", "max_concurrency=4", "--json", env=one.env)
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert (told["task_id"], told["items"], told["successful"]) == (task_id, ITEMS, ITEMS)
    assert sent_again(one, model, seen) <= {*NAMES[GOOD:]}

    other = json.loads(fresh.stdout)["task_id"]
    files = {name: data for name, data in tree(out).items() if not name.endswith(".summary.json")}
    undisturbed = {
        name.replace(other, task_id): data.replace(other.encode(), task_id.encode())
        for name, data in files.items()
        if other in name
    }
    assert {name: data for name, data in files.items() if other not in name} == undisturbed
    assert len(undisturbed) > ITEMS
    assert "there is nothing to resume; `thresher run SPEC --retry-failed " in why_not(task_id, spec)


@pytest.mark.slow
def test_run__that_was_killed_with_its_embedded_server_is_resumed_there_or_from_its_folder_alone(
    halfway: Any, thresher: Any, model: FakeModelServer, tmp_path: Path, prefect_server: str
) -> None:
    one = halfway(embedded=True)
    one.kill()
    out, kept = tmp_path / "out", tmp_path / "kept"
    shutil.copytree(out, kept)
    for env in ({**one.env, "PREFECT_API_URL": prefect_server}, one.env):  # the first one does not know it
        shutil.rmtree(out)
        shutil.copytree(kept, out)
        seen = model.stats()["items"]
        ran = thresher("run", one.spec, "--resume", one.task_id, "--json", env=env)
        assert ran.returncode == 0, ran.stderr
        told = json.loads(ran.stdout)
        assert (told["task_id"], told["items"], told["successful"]) == (one.task_id, ITEMS, ITEMS)
        assert "Traceback" not in ran.stderr
        manifests = sorted(path.name for path in out.iterdir() if path.name.endswith(".manifest"))
        assert manifests == [f"infer-result-{one.task_id}.manifest"]
        assert sent_again(one, model, seen) <= {*NAMES[GOOD:]}
    assert "there is no such run on this" in why_not(one.task_id, one.spec)
