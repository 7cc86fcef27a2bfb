"""Runs of exactly the FAILED items of an earlier run: these alone, or merged into one complete manifest."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes.model_behaviour import item_key
from fakes.model_server import FakeModelServer
from fakes.processes import meanwhile, poll
from fakes.s3_server import S3Server

from tasks.domain.errors import AccountError, SpecificationError
from tasks.domain.run import RunFailed

pytestmark = pytest.mark.prefect

NAMES = ["1.jpg", "a/1.jpg", "a/2.jpg", "a/b/1.jpg", "b.jpg", "c.jpg", "d.jpg"]
SICK = ["a/2.jpg", "a/b/1.jpg", "d.jpg"]


@pytest.fixture
def source(tmp_path: Path, write_files: Any) -> Path:
    """A folder in which three of seven pictures fail."""
    texts = {name: f"FAIL:404 {name}" if name in SICK else f"picture {name}" for name in NAMES}
    return Path(write_files(tmp_path / "in", texts))


@pytest.fixture
def heal(source: Path) -> Callable[..., None]:
    """Makes pictures good."""

    def heal(*names: str) -> None:
        for name in names:
            (source / name).write_text(f"healed {name}")

    return heal


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def sources(ran: Any, folder: Path) -> list[str]:
    return [line["source"].removeprefix(f"{folder}/") for line in ran.lines]


def test_failed_of__runs_these_items_only_and_changes_nothing_of_the_earlier_run(
    run_service: Any, running: dict[str, str], source: Path, heal: Any, tmp_path: Path, model: Any
) -> None:
    first = run_service(input_path=str(source), **running)
    assert (first.result.successful, first.result.failed) == (4, 3)
    before = files_below(tmp_path / "out")
    heal("a/2.jpg", "a/b/1.jpg")
    sent = model.stats()["requests"]["/"]
    again = run_service(input_path=str(source), failed_of=first.result.manifest, **running)
    assert model.stats()["requests"]["/"] == sent + 3
    assert (again.state, again.result.items, again.result.successful, again.result.failed) == ("Completed", 3, 2, 1)
    assert sources(again, source) == SICK
    assert [line["result"] for line in again.lines] == ["SUCCESSFUL", "SUCCESSFUL", "FAILED"]
    assert sorted(again.files) == ["a/2.jpg_result.txt", "a/b/1.jpg_result.txt"]
    assert again.summary["failed_of"] == first.result.manifest and again.summary["merged_lines"] == 0
    after = files_below(tmp_path / "out")
    assert {name: after[name] for name in before} == before


def test_merge__makes_one_complete_manifest_that_can_be_retried_again(
    run_service: Any, running: dict[str, str], source: Path, heal: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THRESHER_MANIFEST_LINES", "2")
    monkeypatch.setenv("THRESHER_SHARD_ITEMS", "2")

    def whole(ran: Any) -> list[str]:
        return [line for part in ran.result.manifests for line in Path(part).read_text().splitlines()]

    first = run_service(input_path=str(source), **running)
    heal("a/2.jpg", "d.jpg")
    merged = run_service(input_path=str(source), failed_of=first.result.manifest, merge=True, **running)
    assert (merged.state, merged.result.items, merged.result.successful, merged.result.failed) == ("Completed", 7, 6, 1)
    assert [Path(one).name for one in merged.result.manifests] == [
        f"infer-result-{merged.task_id}{part}.manifest" for part in ("", "_1", "_2", "_3")
    ]
    lines = [json.loads(line) for line in whole(merged)]
    assert [one["source"] for one in lines] == [f"{source}/{name}" for name in NAMES]
    for old, new, name in zip(whole(first), whole(merged), NAMES, strict=True):
        assert (old == new) is (name not in SICK or name == "a/b/1.jpg")
        if name in ("a/2.jpg", "d.jpg"):
            assert f"infer-result-{merged.task_id}/{name}_result.txt" in new
    assert merged.summary["items"] == {"planned": 7, "successful": 6, "failed": 1, "not_processed": 0}
    assert merged.summary["merged_lines"] == 4
    assert all(Path(one["inference-loc"]).is_file() for one in lines if one["result"] == "SUCCESSFUL")

    heal("a/b/1.jpg")
    last = run_service(input_path=str(source), failed_of=merged.result.manifest, merge=True, **running)
    assert (last.result.items, last.result.successful, last.result.failed) == (7, 7, 0)
    runs = [json.loads(line)["inference-loc"].split("infer-result-")[1].split("/")[0] for line in whole(last)]
    ids = (first.task_id, first.task_id, merged.task_id, last.task_id, first.task_id, first.task_id, merged.task_id)
    assert runs == list(ids)


@pytest.mark.parametrize("merge", [False, True])
def test_failed_of__a_run_in_which_nothing_succeeds_is_failed_and_accounts_for_every_item(
    run_service: Any, running: dict[str, str], source: Path, merge: bool
) -> None:
    first = run_service(input_path=str(source), **running)
    again = run_service(input_path=str(source), failed_of=first.result.manifest, merge=merge, **running)
    assert (again.state, type(again.error)) == ("Failed", RunFailed)
    assert "No item succeeded: all 3 failed again." in str(again.error)
    assert len(again.lines) == (7 if merge else 3)


def test_failed_of__a_manifest_keeps_sources_as_they_stand_and_unreadable_lines_fail_as_before(
    run_service: Any, running: dict[str, str], source: Path, heal: Any, tmp_path: Path
) -> None:
    lines = ['{"source": "in/a/2.jpg"}', "no JSON", '{"source": "in/b.jpg"}', '{"source": "in/missing.jpg"}']
    (tmp_path / "input.manifest").write_text("\n".join(lines))
    fields = {"input_path": str(tmp_path / "input.manifest"), **running}
    first = run_service(**fields)
    assert (first.result.successful, first.result.failed) == (1, 3)
    heal("a/2.jpg")
    (tmp_path / "no JSON").write_text("a file that is called like the line")
    again = run_service(failed_of=first.result.manifest, **fields)
    assert [line["source"] for line in again.lines] == ["in/a/2.jpg", "no JSON", "in/missing.jpg"]
    assert again.lines[1:] == first.lines[1:2] + first.lines[3:]
    assert sorted(again.files) == ["2.jpg_result.txt"]


def test_failed_of__goes_to_another_output_folder_and_reads_nothing_outside_of_the_input(
    run_service: Any, running: dict[str, str], source: Path, heal: Any, tmp_path: Path
) -> None:
    first = run_service(input_path=str(source), **running)
    heal(*SICK)
    elsewhere = str(tmp_path / "elsewhere")
    again = run_service(
        input_path=str(source / "a"), output_path=elsewhere, failed_of=first.result.manifest, merge=True, **running
    )
    assert (again.result.items, again.result.failed) == (7, 1)
    assert sorted(again.files) == ["2.jpg_result.txt", "b/1.jpg_result.txt"]
    assert again.lines[-1]["error_message"] == f"Download file failed. It is not in the input path {source / 'a'}."
    assert len(os.listdir(elsewhere)) == 3


@pytest.mark.parametrize("named", ["folder", "file", "manifest"])
def test_failed_of__a_manifest_that_somebody_has_changed_has_nothing_read_that_is_not_in_the_input(
    run_service: Any, running: dict[str, str], source: Path, tmp_path: Path, model: FakeModelServer, named: str
) -> None:
    (tmp_path / "input.manifest").write_text("".join(f'{{"source": "in/{name}"}}\n' for name in SICK))
    paths = {"folder": source, "file": source / "d.jpg", "manifest": tmp_path / "input.manifest"}
    fields = {"input_path": str(paths[named]), **running}
    first = run_service(**fields)
    secret = tmp_path / "secret.txt"
    secret.write_text("the secret of another user")
    (source / ".hidden").write_text("the secret of the same user")
    manifest = Path(first.result.manifest)
    places = [str(secret), f"file://{secret}", str(source / ".." / "secret.txt"), str(source / ".hidden")]
    forged = [json.dumps({"source": place, "result": "FAILED", "error_message": "x"}) for place in places]
    manifest.write_text("\n".join([*manifest.read_text().splitlines(), *forged]) + "\n")
    Path(first.result.summary).unlink()
    again = run_service(failed_of=str(manifest), **fields)
    lines = again.lines[-len(places) :]
    assert [line["source"] for line in lines] == places
    said = {"folder": "It is not in the input path", "file": "It is not the input path"}
    for line in lines[: 3 if named == "folder" else 4]:
        assert f"{said.get(named, 'It is not in the input manifest')} {paths[named]}." in line["error_message"]
    assert "of a folder are passed over" in lines[3]["error_message"] or named != "folder"
    seen = model.stats()["seen"]
    assert not [text for text in (secret, source / ".hidden") if item_key(text.read_bytes()) in seen]


@pytest.mark.parametrize("scheme", ["s3", pytest.param("obs", marks=pytest.mark.soak)])
def test_failed_of__in_buckets(
    run_service: Any, running: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    with S3Server(tmp_path / "objects") as server:
        for name, value in server.environment("AWS" if scheme == "s3" else "OBS").items():
            monkeypatch.setenv(name, value)
        for name in NAMES:
            server.put("data", f"in/{name}", b"FAIL:404" if name in SICK else name.encode())
        fields = {"input_path": f"{scheme}://data/in", "output_path": f"{scheme}://results/out", **running}
        server.make_bucket("results")
        first = run_service(**fields)
        for name in SICK:
            server.put("data", f"in/{name}", f"healed {name}".encode())
        again = run_service(failed_of=first.result.manifest, merge=True, **fields)
        assert (again.state, again.result.items, again.result.failed) == ("Completed", 7, 0)
        keys = server.keys("results", f"out/infer-result-{again.task_id}/")
        assert sorted(key.split("/", 2)[2] for key in keys) == [f"{name}_result.txt" for name in SICK]
        missing = f"{scheme}://results/out/infer-result-{uuid.uuid4()}.manifest"
        refused = run_service(failed_of=missing, **fields)
        assert "there is no such output manifest" in str(refused.error)


def refusal(ran: Any, tmp_path: Path, runs: int = 1) -> str:
    """The one problem of a refused run, which has left nothing."""
    assert (ran.state, type(ran.error)) == ("Failed", SpecificationError)
    (problem,) = ran.error.problems
    assert problem.field == "failed_of"
    assert len([name for name in os.listdir(tmp_path / "out") if name.endswith(".json")]) <= runs
    return str(problem)


def test_failed_of__is_refused_when_no_item_failed_or_there_is_no_such_manifest(
    run_service: Any, running: dict[str, str], source: Path, heal: Any, tmp_path: Path
) -> None:
    heal(*SICK)
    fields = {"input_path": str(source), **running}
    first = run_service(**fields)
    said = refusal(run_service(failed_of=first.result.manifest, **fields), tmp_path)
    assert "no item is FAILED in it, so there is nothing to try again" in said
    Path(first.result.summary).unlink()
    assert "no item is FAILED in it" in refusal(run_service(failed_of=first.result.manifest, **fields), tmp_path)
    missing = first.result.manifest.replace(first.task_id, str(uuid.uuid4()))
    assert "there is no such output manifest" in refusal(run_service(failed_of=missing, **fields), tmp_path)
    (tmp_path / "out" / f".{Path(missing).stem}").mkdir()
    assert "its run has not published it: it is still active" in refusal(
        run_service(failed_of=missing, **fields), tmp_path
    )


def test_failed_of__is_refused_when_a_line_is_damaged(
    run_service: Any, running: dict[str, str], source: Path, tmp_path: Path
) -> None:
    fields = {"input_path": str(source), **running}
    manifest = Path(run_service(**fields).result.manifest)
    _, *others = manifest.read_text().splitlines()
    for damage, said in (
        ('{"source": "x","result":"MAYBE"}', "line 1 of {name} is no line of an output manifest: it is neither"),
        ('{"source": "/in/1.jpg"}', "line 1 of {name} is no line of an output manifest"),
        ("no JSON at all", "line 1 of {name} is no line of an output manifest: it is not JSON in UTF-8"),
    ):
        manifest.write_text("\n".join([damage, *others]) + "\n")
        ran = run_service(failed_of=str(manifest), **fields)
        assert said.format(name=manifest.name) in refusal(ran, tmp_path)


def test_failed_of__is_refused_while_planning_when_lines_or_parts_are_lost(
    run_service: Any, running: dict[str, str], source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THRESHER_MANIFEST_LINES", "3")
    fields = {"input_path": str(source), **running}
    result = run_service(**fields).result
    part = Path(result.manifests[1])

    def refused() -> str:
        ran = run_service(failed_of=result.manifest, **fields)
        assert ran.state == "Failed"
        assert not [name for name in os.listdir(tmp_path / "out") if ran.task_id in name]
        return str(ran.error)

    part.write_text("".join(part.read_text().splitlines(keepends=True)[:1]))
    said = refused()
    assert "it has 5 lines in 3 parts, but its run's summary" in said and "counts 7 items" in said
    part.unlink()
    said = refused()
    assert part.name in said and "no such file" in said.lower()


def test_merge__is_not_published_when_the_earlier_manifest_changes_meanwhile(
    run_service: Any, running: dict[str, str], source: Path, tmp_path: Path, model: FakeModelServer
) -> None:
    fields = {"input_path": str(source), **running}
    first = run_service(**fields)
    manifest = Path(first.result.manifest)
    gate = tmp_path / "gate"
    text = f"FAIL:until:{gate} "
    (source / "d.jpg").write_text(text)
    Path(first.result.summary).unlink()

    def change() -> None:
        poll(lambda: item_key(text.encode()) in model.stats()["seen"])
        manifest.write_text("".join(manifest.read_text().splitlines(keepends=True)[::-1]))
        gate.touch()

    with meanwhile(change):
        ran = run_service(failed_of=str(manifest), merge=True, **fields)
    assert (ran.state, type(ran.error)) == ("Failed", AccountError)
    assert "has changed since its FAILED items were planned" in str(ran.error)
    assert not [name for name in os.listdir(tmp_path / "out") if name.startswith(f"infer-result-{ran.task_id}.")]
    shutil.rmtree(tmp_path / "out" / f".infer-result-{ran.task_id}")  # reports stay, for whoever wants to see them
