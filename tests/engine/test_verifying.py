"""What is published as SUCCESSFUL is there, as it was written."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from clients.places import Place
from clients.support import run
from engine.runs import make_run, output_of
from engine.test_publishing import Published, outcome

from tasks.clients.storage.failures import ObjectError
from tasks.clients.storage.output_folder import OutputFolder
from tasks.clients.storage.storage import Storage
from tasks.domain.run import RunResult
from tasks.domain.settings import Settings
from tasks.engine.publishing import publish_run

LOST = "Upload of the result file failed. It was written with 3 bytes, but "
Change = Callable[[Path], None]


def lines(result: RunResult) -> list[dict[str, str]]:
    """The lines of the output manifest."""
    return [json.loads(line) for part in result.manifests for line in Path(part).read_text().splitlines()]


def published_after(tmp_path: Path, change: Change, items: int = 6, part: int = 100_000) -> RunResult:
    """What is published if the result folder is changed after the reports were written."""
    run_ = make_run("http://127.0.0.1:1", str(tmp_path / "out"))
    given = Published(run_, [[outcome(number) for number in range(items)], [outcome(items, "no")]])

    async def work() -> RunResult:
        output = output_of(run_, Storage(Settings()))
        await given.write(output)
        change(tmp_path / "out" / run_.names.result_folder)
        return await publish_run(run_, given.plan, given.done(), Settings(manifest_lines=part), output)

    return run(work())


@pytest.mark.parametrize(
    ("change", "now"),
    [
        (lambda folder: (folder / "002.jpg_result.txt").unlink(), "it is not there any more."),
        (lambda folder: (folder / "002.jpg_result.txt").write_bytes(b""), "it has 0 now."),
        (lambda folder: (folder / "002.jpg_result.txt").write_bytes(b"longer"), "it has 6 now."),
        (
            lambda folder: (
                (folder / "002.jpg_result.txt").unlink(),
                (folder / "002.jpg_result.txt").symlink_to("003.jpg_result.txt"),
            ),
            "it is not there any more.",
        ),
        (
            lambda folder: ((folder / "002.jpg_result.txt").unlink(), (folder / "002.jpg_result.txt").mkdir()),
            "it is not there any more.",
        ),
    ],
)
@pytest.mark.parametrize("part", [100_000, 2])
def test_result_file__that_is_not_there_as_it_was_written_fails_its_item(
    tmp_path: Path, change: Change, now: str, part: int
) -> None:
    result = published_after(tmp_path, change, part=part)
    found = lines(result)
    assert [line["result"] for line in found] == ["SUCCESSFUL"] * 2 + ["FAILED"] + ["SUCCESSFUL"] * 3 + ["FAILED"]
    assert found[2]["error_message"] == LOST + now
    assert (result.items, result.successful, result.failed) == (7, 5, 2)
    summary = json.loads(Path(result.summary).read_text())
    assert summary["items"] == {"planned": 7, "successful": 5, "failed": 2, "not_processed": 0}
    assert summary["bytes"]["written"] == 5 * 3 + 3  # the report counts three for the item that had failed, too
    assert {cause["items"] for cause in summary["top_causes"]} == {1}


def test_result_folder__that_is_gone_leaves_no_line_successful(tmp_path: Path) -> None:
    result = published_after(tmp_path, lambda folder: shutil.rmtree(folder))
    assert {line["result"] for line in lines(result)} == {"FAILED"}
    assert result.failure == "No item succeeded: all 7 failed."


@pytest.mark.parametrize("lost", [False, True])
def test_tables__of_which_rows_failed_say_where_their_answers_are_while_they_are_there(
    tmp_path: Path, lost: bool
) -> None:
    run_ = make_run("http://127.0.0.1:1", str(tmp_path / "out"))
    partly = outcome(1, "1 of 3 rows failed, first: row 2: no")._replace(written=True, rows=3, failed_rows=1)
    given = Published(run_, [[outcome(0), partly, outcome(2, "no")]])
    file = tmp_path / "out" / run_.names.result_folder / "001.jpg_result.txt"

    async def work() -> RunResult:
        output = output_of(run_, Storage(Settings()))
        await given.write(output)
        if lost:
            file.unlink()
        return await publish_run(run_, given.plan, given.done(), Settings(), output)

    result = run(work())
    assert (result.successful, result.failed) == (1, 2)
    found = lines(result)
    assert found[1]["error_message"] == partly.message + (f" {LOST}it is not there any more." if lost else "")
    assert found[1].get("inference-loc") == (None if lost else str(file))
    assert "inference-loc" not in found[2]


def test_foreign_files__cost_nobody_anything(tmp_path: Path) -> None:
    def change(folder: Path) -> None:
        for number in range(50):
            (folder / f"foreign-{number}").write_bytes(b"x")
        (folder / "sub").mkdir()
        (folder / "sub" / "file").touch()

    assert published_after(tmp_path, change).successful == 6


def test_result_files__that_are_all_there_are_listed_and_not_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def looked_at(*_: object) -> int:
        raise AssertionError("a single file was looked at")

    monkeypatch.setattr(OutputFolder, "size", looked_at)
    assert published_after(tmp_path, lambda folder: None, items=300).successful == 300


def test_objects__that_are_gone_fail_their_items(place: Place) -> None:
    run_ = make_run("http://127.0.0.1:1", f"{place.root}/out")
    given = Published(run_, [[outcome(0), outcome(1), outcome(2)]])

    async def work(storage: Storage) -> RunResult:
        output = output_of(run_, storage)
        await given.write(output)
        await output.delete_files([f"{run_.names.result_folder}/001.jpg_result.txt"])
        return await publish_run(run_, given.plan, given.done(), Settings(), output)

    result = place.do(work)
    assert (result.successful, result.failed) == (2, 1)
    found = [json.loads(line) for line in place.get(f"out/infer-result-{run_.task_id}.manifest").splitlines()]
    assert found[1]["error_message"] == f"{LOST}it is not there any more."


def test_output_folder__with_another_in_its_place_is_gone(tmp_path: Path) -> None:
    root = tmp_path / "out"
    root.mkdir()
    place = Place("local", make_run("http://x", str(root)).output_address, {}, None)

    async def work(storage: Storage) -> None:
        output = place.output(storage)
        await output.write("results/first", b"data")
        shutil.rmtree(root / "results")
        await output.write("results/second", b"data")  # the same folder still
        assert not output.is_gone()
        os.rename(root, tmp_path / "moved")
        root.mkdir()
        assert output.is_gone()
        with pytest.raises(ObjectError, match="The output folder is gone"):
            await output.write("results/third", b"data")
        with pytest.raises(ObjectError, match="The output folder is gone"):
            async with output.stream("manifest") as writer:
                await writer.write(b"data")
        assert os.listdir(root) == []

    place.do(work)


def test_output_folder__of_another_try_keeps_its_scratch_folder_when_it_is_checked(tmp_path: Path) -> None:
    root = tmp_path / "out"
    root.mkdir()
    place = Place("local", make_run("http://x", str(root)).output_address, {}, None)

    async def work(storage: Storage) -> None:
        first, second = place.output(storage), place.output(storage)
        await first.write(".scratch/plan.json", b"plan")
        await second.check_writable()
        await first.write("results/1", b"data")
        assert place.get("results/1") == b"data"

    place.do(work)


def test_output_folder__of_a_process_that_joins_is_not_made_again_once_the_run_has_published(tmp_path: Path) -> None:
    root = tmp_path / "out"
    root.mkdir()
    place = Place("local", make_run("http://x", str(root)).output_address, {}, None)

    async def work(storage: Storage) -> None:
        flow, joining, late, too_late = (place.output(storage) for _ in range(4))
        await flow.write(f"{flow.scratch.name}/plan.json", b"plan")
        joining.join()
        (root / flow.scratch.name / "tmp").rmdir()  # empty folders are sometimes cleaned away
        await joining.write("results/1", b"data")
        assert not joining.is_gone()
        late.join()
        await flow.remove_scratch()
        for write in (late.write("results/2", b"data"), joining.write("results/3", b"data")):
            with pytest.raises(ObjectError, match="The output folder is gone"):
                await write
        with pytest.raises(ObjectError, match="The output folder is gone"):
            too_late.join()
        assert [*root.rglob("*")] == [root / "results", root / "results/1"]

    place.do(work)
