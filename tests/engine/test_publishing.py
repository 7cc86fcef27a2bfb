"""Publishing: the output manifest to the letter, or none at all."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from clients.places import Place
from clients.support import run
from engine.runs import make_run, output_of

from tasks.clients import clock
from tasks.clients.storage.failures import ObjectError
from tasks.clients.storage.output_folder import OutputFolder
from tasks.clients.storage.storage import Storage
from tasks.clients.tables import report_bytes
from tasks.domain import seal
from tasks.domain.errors import AccountError, StorageError
from tasks.domain.result import Outcome, Tally
from tasks.domain.run import PLAN_NAME, Plan, Run, RunFailed, RunResult, ShardDone, ShardRef
from tasks.domain.settings import Settings
from tasks.domain.stop import threshold_passed
from tasks.engine.progress import forget, progress_of
from tasks.engine.publishing import publish_run
from tasks.engine.stored_plan import sealed_plan


def outcome(number: int, message: str = "", source: str = "") -> Outcome:
    name = f"{number:03d}.jpg"
    return Outcome(
        number, source or f"/in/{name}", f"{name}_result.txt", message, not message, bytes_read=10, bytes_written=3
    )


def tally_of(outcomes: Sequence[Outcome]) -> Tally:
    tally = Tally()
    for one in outcomes:
        tally.add(one)
        tally.request(0.01)
    return tally


class Published:
    """A planned run whose reports are written as given, and what publishing it brings."""

    def __init__(self, run_: Run, shards: Sequence[Sequence[Outcome]], planned: Sequence[int] | None = None) -> None:
        self.run = run_
        self.shards = shards
        counts = list(planned or map(len, shards))
        self.refs = [
            ShardRef(number=number, first_item=sum(counts[:number]), items=count, bytes=0)
            for number, count in enumerate(counts)
        ]
        self.plan = Plan(items=sum(counts), bytes=0, unknown_sizes=0, shards=tuple(self.refs), seconds=0.5)
        self.without: set[int] = set()
        self.tallies: dict[int, Tally] = {}

    async def write(self, output: OutputFolder) -> None:
        """Write plan and reports."""
        await output.make()
        scratch = output.scratch.name
        await output.write(f"{scratch}/{PLAN_NAME}", sealed_plan(self.run, self.plan))
        for ref, outcomes in zip(self.refs, self.shards, strict=True):
            if ref.number not in self.without:
                tally = self.tallies.get(ref.number, tally_of(outcomes))
                report = report_bytes(outcomes, tally, ref.owner(self.run.task_id))
                await output.write(f"{scratch}/{ref.report_name(self.run.attempt)}", report)
        for one in {one for outcomes in self.shards for one in outcomes if one.written}:
            await output.write(f"{self.run.names.result_folder}/{one.result_name}", b"x" * one.bytes_written)

    def done(self, **fields: Any) -> list[ShardDone]:
        """The shards as done."""
        return [
            ShardDone(
                shard=ref, report=ref.report_name(self.run.attempt), successful=0, failed=0, **{
                    "started_at": 1010.0, "ended_at": 1020.0 + ref.number, "preparing_since": 1000.0, "ready_at": 1012.0
                } | fields,
            )
            for ref in self.refs
        ]  # fmt: skip

    async def publish(self, storage: Storage, output: OutputFolder | None = None, lines: int = 100_000) -> RunResult:
        """Write and publish."""
        output = output or output_of(self.run, storage)
        await self.write(output)
        return await publish_run(self.run, self.plan, self.done(), Settings(manifest_lines=lines), output)


def local_run(folder: Path, **fields: Any) -> Run:
    return make_run("http://127.0.0.1:1", str(folder / "out"), **fields)


def publish(published: Published, lines: int = 100_000) -> RunResult:
    async def work() -> RunResult:
        return await published.publish(Storage(Settings()), lines=lines)

    return run(work())


def test_manifest__stands_as_the_contract_says(tmp_path: Path) -> None:
    run_ = local_run(tmp_path)
    source = 'obs://bucket/汉 "字"\\.jpg?x=\u2028'
    result = publish(Published(run_, [[outcome(0), outcome(1, 'It\nfailed: "why"', source)], [outcome(2)]]))
    folder = tmp_path / "out" / f"infer-result-{run_.task_id}"
    expected = (
        f'{{"source": "/in/000.jpg","result":"SUCCESSFUL","inference-loc": "{folder}/000.jpg_result.txt"}}\n'
        '{"source": "obs://bucket/汉 \\"字\\"\\\\.jpg?x=\u2028","result":"FAILED",'
        '"error_message": "It\\nfailed: \\"why\\""}\n'
        f'{{"source": "/in/002.jpg","result":"SUCCESSFUL","inference-loc": "{folder}/002.jpg_result.txt"}}\n'
    )
    assert result.manifest == f"{folder}.manifest"
    assert Path(result.manifest).read_bytes() == expected.encode()
    assert result.manifests == (result.manifest,)
    assert (result.items, result.successful, result.failed, result.failure) == (3, 2, 1, "")
    left = sorted(os.listdir(tmp_path / "out"))
    assert left == [folder.name, f"{folder.name}.manifest", f"{folder.name}.summary.json"]


def test_manifest__has_the_scheme_of_the_output_path(place: Place) -> None:
    run_ = make_run("http://127.0.0.1:1", f"{place.root}/out")
    published = Published(run_, [[outcome(0), outcome(1, "no")]])
    result = place.do(published.publish)
    name = f"infer-result-{run_.task_id}"
    assert result.manifest == f"{place.root}/out/{name}.manifest"
    first = json.loads(place.get(f"out/{name}.manifest").splitlines()[0])
    assert first["inference-loc"] == f"{place.root}/out/{name}/000.jpg_result.txt"
    results = [f"out/{name}/000.jpg_result.txt"]
    assert place.names() == [f"out/{name}.manifest", f"out/{name}.summary.json", *results]


def test_manifest__in_the_older_layout_names_the_older_folder(tmp_path: Path) -> None:
    run_ = local_run(tmp_path, result_folder="infer-result")
    result = publish(Published(run_, [[outcome(0)]]))
    line = json.loads(Path(result.manifest).read_text())
    assert line["inference-loc"] == f"{tmp_path}/out/infer-result/000.jpg_result.txt"


@pytest.mark.parametrize(("items", "lines", "parts"), [(10, 4, 3), (8, 4, 2), (4, 4, 1), (5, 1, 5), (1, 100, 1)])
def test_manifest__goes_on_in_further_parts(tmp_path: Path, items: int, lines: int, parts: int) -> None:
    run_ = local_run(tmp_path)
    outcomes = [outcome(number) for number in range(items)]
    shards = [outcomes[start : start + 3] for start in range(0, items, 3)]
    result = publish(Published(run_, shards), lines)
    ends = ["", *(f"_{part}" for part in range(1, parts))]
    assert [*result.manifests] == [f"{tmp_path}/out/infer-result-{run_.task_id}{end}.manifest" for end in ends]
    texts = [Path(manifest).read_text() for manifest in result.manifests]
    assert [text.count("\n") for text in texts[:-1]] == [lines] * (parts - 1)
    found = [json.loads(line)["source"] for line in "".join(texts).splitlines()]
    assert found == [one.source for one in outcomes]


def test_manifest__of_many_lines_is_written_in_pieces(tmp_path: Path) -> None:
    outcomes = [outcome(number, "x" * 200) for number in range(20_000)] + [outcome(20_000)]
    result = publish(Published(local_run(tmp_path), [outcomes]))
    assert Path(result.manifest).stat().st_size > 4 << 20
    assert Path(result.manifest).read_bytes().count(b"\n") == 20_001


def test_manifest__in_many_parts_reads_no_report_more_than_three_times(tmp_path: Path) -> None:
    outcomes = [outcome(number) for number in range(40)]
    published = Published(local_run(tmp_path), [outcomes[:5], outcomes[5:35], outcomes[35:]])
    read: list[str] = []

    class Noting(OutputFolder):
        async def read(self, relative: str) -> bytes:
            read.append(relative)
            return await super().read(relative)

    async def work() -> RunResult:
        output = Noting(Storage(Settings()), published.run.output_address, published.run.names.scratch)
        return await published.publish(Storage(Settings()), output, lines=3)

    result = run(work())
    assert len(result.manifests) == 14
    texts = [json.loads(line)["source"] for name in result.manifests for line in Path(name).read_text().splitlines()]
    assert texts == [one.source for one in outcomes]
    # Once to check the sum, once for the parts in a row, and those of the first part, which is written last.
    assert {name.rpartition("/")[2].split("-")[1]: read.count(name) for name in read} == {"0": 3, "5": 2, "35": 2}


@pytest.mark.parametrize("fault", ["missing", "twice", "order", "foreign", "more", "report", "tally"])
def test_account__that_does_not_agree_publishes_nothing(tmp_path: Path, fault: str) -> None:
    good = [[outcome(0), outcome(1)], [outcome(2), outcome(3)]]
    shards = {
        "missing": [good[0], [outcome(3)]],
        "twice": [good[0], [outcome(1), outcome(3)]],
        "order": [[outcome(1), outcome(0)], good[1]],
        "foreign": [good[0], [outcome(2), outcome(7)]],
        "more": [good[0], [*good[1], outcome(4)]],
    }.get(fault, good)
    run_ = local_run(tmp_path)
    published = Published(run_, shards, planned=[2, 2])
    if fault == "report":
        published.without = {1}
    if fault == "tally":
        published.tallies = {1: tally_of([outcome(2)])}
    with pytest.raises(AccountError, match="so the output manifest is not published"):
        publish(published)
    assert run_.names.scratch in os.listdir(tmp_path / "out")  # the reports stay
    assert not list((tmp_path / "out").glob("*.manifest"))
    assert (tmp_path / "out" / run_.names.scratch / published.refs[0].report_name(run_.attempt)).exists()


def test_run__none_of_whose_items_succeeded_is_failed_and_published(tmp_path: Path) -> None:
    result = publish(Published(local_run(tmp_path), [[outcome(0, "no"), outcome(1, "no")]]))
    assert result.failure == "No item succeeded: all 2 failed."
    assert Path(result.manifest).read_text().count("FAILED") == 2
    with pytest.raises(RunFailed, match=r"No item succeeded: all 2 failed\. Output manifest: /"):
        result.checked()


def test_run__that_was_stopped_early_is_failed(tmp_path: Path) -> None:
    published = Published(local_run(tmp_path), [[outcome(0), outcome(1, "no")]])

    async def work() -> RunResult:
        output = output_of(published.run, Storage(Settings()))
        await published.write(output)
        done = published.done(stopped=threshold_passed(2, 3, 4))
        return await publish_run(published.run, published.plan, done, Settings(), output)

    assert run(work()).failure == "The run was stopped early because 3 items had failed (error_threshold 2)."


def test_summary__counts(tmp_path: Path) -> None:
    service = local_run(tmp_path).service.model_copy(update={"model": "http://a http://b"})
    update = {"service": service, "start_seconds": 1.2, "validate_seconds": 0.3}
    run_ = local_run(tmp_path).model_copy(update=update)
    shards = [[outcome(0), outcome(1, "item 17 is bad")], [outcome(2, "item 18 is bad"), outcome(3)]]
    published = Published(run_, shards)
    first = tally_of(shards[0])
    first.retries, first.rows, first.failed_rows = 3, 10, 2
    published.tallies = {0: first}
    result = publish(published)
    summary = json.loads((tmp_path / "out" / run_.names.summary).read_bytes())
    assert result.summary == f"{tmp_path}/out/{run_.names.summary}"
    assert summary["items"] == {"planned": 4, "successful": 2, "failed": 2, "not_processed": 0}
    assert summary["rows"] == {"successful": 8, "failed": 2}
    assert summary["bytes"] == {"read": 40, "written": 12}
    assert (summary["requests"], summary["retries"], summary["shards"]) == (4, 3, 2)
    assert (
        summary["top_causes"]
        == [{"cause": "item 17 is bad", "items": 2, "item": "/in/001.jpg"}]
        == list(result.top_causes)
    )
    assert summary["seconds"] | {"publish": 0} == {
        "start": 1.2, "validate": 0.3, "plan": 0.5, "prepare": 12.0, "infer": 9.0, "publish": 0
    }  # fmt: skip
    assert summary["instance_seconds"] == {"test": 42.0}
    assert 9.5 <= summary["latency_ms"]["p50"] <= 10.5
    assert summary["task_id"] == run_.task_id
    assert summary["manifests"] == [result.manifest]


@pytest.mark.parametrize("jump", [86_400.0, -86_400.0])
def test_seconds__fit_into_what_has_passed_when_clocks_of_instances_jump(tmp_path: Path, jump: float) -> None:
    run_ = local_run(tmp_path, instances=2)
    published = Published(run_, [[outcome(0)], [outcome(1)]])
    began = clock.now() - 30
    progress_of(run_.task_id).flow_began_at = began
    stamps = {"preparing_since": began + 1, "ready_at": began + 3 + jump, "started_at": began + 3}

    async def work() -> RunResult:
        output = output_of(run_, Storage(Settings()))
        await published.write(output)
        ends = {"ended_at": began + 9 + jump, "instance": 1}
        late = [one.model_copy(update=ends) for one in published.done(**stamps)]
        return await publish_run(run_, published.plan, late, Settings(), output)

    try:
        seconds = run(work()).seconds
    finally:
        forget(run_.task_id)
    assert all(0 <= value < 90 for value in seconds.values())
    summary = json.loads((tmp_path / "out" / run_.names.summary).read_bytes())
    assert 0 <= summary["instance_seconds"]["test"] < 90


def test_seconds__of_a_run_that_was_stopped_before_an_instance_was_ready(tmp_path: Path) -> None:
    published = Published(local_run(tmp_path), [[outcome(0, "The run was stopped before it was processed.")]])

    async def work() -> RunResult:
        output = output_of(published.run, Storage(Settings()))
        await published.write(output)
        return await publish_run(published.run, published.plan, published.done(ready_at=0.0), Settings(), output)

    seconds = run(work()).seconds
    assert (seconds["prepare"], seconds["infer"]) == (20.0, 0.0)


def test_summary__without_a_request_has_no_latency(tmp_path: Path) -> None:
    published = Published(local_run(tmp_path), [[outcome(0, "no")]])
    tally = Tally()
    tally.add(outcome(0, "no"))
    published.tallies = {0: tally}
    result = publish(published)
    summary = json.loads(Path(result.summary).read_bytes())
    assert set(summary["latency_ms"].values()) == {None}
    assert summary["requests"] == 0


class Faltering(OutputFolder):
    """An output folder whose storage fails at one file, as a full disk does."""

    fails_at = ""

    async def write(self, relative: str, data: bytes) -> None:
        if self.fails_at and relative.endswith(self.fails_at):
            raise ObjectError("No space left on device.")
        await super().write(relative, data)

    @asynccontextmanager
    async def stream(self, relative: str) -> AsyncIterator[Any]:
        async with super().stream(relative) as writer:
            if not (self.fails_at and relative.endswith(self.fails_at)):
                yield writer
                return

            class Half:
                async def write(self, data: bytes) -> None:
                    await writer.write(data[: len(data) // 2])
                    raise ObjectError("No space left on device.")

            yield Half()


@pytest.mark.parametrize("fails_at", [".manifest", "_1.manifest", ".summary.json"])
def test_storage__that_fails_leaves_no_manifest_that_looks_complete(place: Place, fails_at: str) -> None:
    run_ = make_run("http://127.0.0.1:1", f"{place.root}/out")
    published = Published(run_, [[outcome(number) for number in range(6)]])
    name = f"infer-result-{run_.task_id}"

    async def work(storage: Storage) -> None:
        output = Faltering(storage, run_.output_address, run_.names.scratch)
        output.fails_at = fails_at
        await published.publish(storage, output, lines=2)

    with pytest.raises(StorageError, match="No space left on device"):
        place.do(work)
    assert f"out/{name}.manifest" not in place.names()  # the first part is written last
    report = f"out/{run_.names.scratch}/{published.refs[0].report_name(run_.attempt)}"
    assert report in place.names()
    # The reports are still there, so that it can be tried again.
    result = place.do(lambda storage: published.publish(storage, lines=2))
    assert result.successful == 6
    assert [found for found in place.names() if run_.names.scratch in found] == []


def test_scratch__that_cannot_be_removed_does_not_fail_a_run_that_is_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def refuse(self: OutputFolder) -> None:
        raise ObjectError("No permission.")

    monkeypatch.setattr(OutputFolder, "remove_scratch", refuse)
    result = publish(Published(local_run(tmp_path), [[outcome(0)]]))
    assert Path(result.manifest).is_file() and Path(result.summary).is_file()
    assert "scratch not removed" in caplog.text and "No permission." in caplog.text


def test_summary__says_what_was_noted_of_how_requests_were_sent(tmp_path: Path) -> None:
    published = Published(local_run(tmp_path), [[outcome(0)], [outcome(1)]])
    for number in (0, 1):
        published.tallies[number] = tally_of(published.shards[number])
        published.tallies[number].note("rows_per_request = auto was given up")
    result = publish(published)
    assert result.warnings == ("rows_per_request = auto was given up",)
    assert json.loads(Path(result.summary).read_text())["warnings"] == ["rows_per_request = auto was given up"]


def test_report__that_somebody_has_written_anew_is_not_published(tmp_path: Path) -> None:
    """It has the right seal, and tells of the planned items: only the digest that came with it shows it."""
    given = Published(local_run(tmp_path), [[outcome(0), outcome(1, "It failed.")]])

    async def work(written: bool) -> RunResult:
        output = output_of(given.run, Storage(Settings()))
        await given.write(output)
        (ref,) = given.refs
        name = f"{output.scratch.name}/{ref.report_name(given.run.attempt)}"
        known = seal.digest(await output.read(name))
        if written:
            forged = [outcome(0), outcome(1)]
            await output.write(name, report_bytes(forged, tally_of(forged), ref.owner(given.run.task_id)))
            await output.write(
                f"{given.run.names.result_folder}/{forged[1].result_name}", b"x" * forged[1].bytes_written
            )
        return await publish_run(given.run, given.plan, given.done(digest=known), Settings(), output)

    with pytest.raises(AccountError, match="is not as it was written, so the output manifest is not published"):
        run(work(written=True))
    assert not list((tmp_path / "out").rglob("report-*"))  # the next try must not believe it, either
    assert not list((tmp_path / "out").glob("*.manifest"))
    assert run(work(written=False)).failed == 1
