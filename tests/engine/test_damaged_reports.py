"""Reports that are damaged, foreign or forged, and outcomes that belong to a stop, when a shard is taken up again."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from engine.tries import Tries, add, outcome, outcomes, ref, run, seen
from fakes.reports import owner_of

from tasks.clients.storage import durable
from tasks.clients.storage.output_folder import OutputFolder
from tasks.clients.tables import plan_bytes, report_bytes
from tasks.domain.item import Item
from tasks.domain.result import Outcome, Tally
from tasks.domain.seal import seal, unseal


@pytest.fixture
def tries(tmp_path: Path) -> Tries:
    return Tries(tmp_path)


DAMAGES = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "one byte": lambda data: data[:100] + bytes([data[100] ^ 1]) + data[101:],
    "of another shard": lambda data: report_bytes(outcomes(10, 15), Tally(), "run/shards/00001"),
    "sealed nonsense": lambda data: seal(b"PAR1 is no table", OWNER),
    "of another version": lambda data: seal(plan_of(outcomes(10, 15)), OWNER),
    "of other items": lambda data: report_bytes(
        [outcome(n)._replace(source="/else") for n in range(10, 15)], Tally(), OWNER
    ),
    "of other results": lambda data: report_bytes(
        [outcome(n)._replace(result_name="../x") for n in range(10, 15)], Tally(), OWNER
    ),
}
OWNER = "filled in"


def forged(**fields: str) -> bytes:
    return report_bytes([one._replace(**fields) for one in outcomes(10, 15)], Tally(), OWNER)


@pytest.mark.parametrize("kind", ["report-10-aa.parquet", "part-10-aa-1.parquet", "report-10-bb.parquet"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_report__that_is_damaged_or_foreign_is_named_and_its_items_are_sent_again(
    tries: Tries, monkeypatch: pytest.MonkeyPatch, damage: str, kind: str
) -> None:
    tries.put(kind, outcomes(10, 15))
    tries.put("part-10-bb-7.parquet", outcomes(15, 17))
    path = tries.scratch / kind
    monkeypatch.setattr(sys.modules[__name__], "OWNER", owner_of(path))
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    again = tries.resumed(ref(10, 20))
    assert seen(again) == [15, 16]
    assert again.whole() is None
    (note,) = again.sent.notes
    assert kind in note and note.endswith("its items were sent again") and "\n" not in note
    tries.write_results(outcomes(10, 20))
    for number in {*range(10, 20)} - again.seen:
        add(again, outcome(number))
    tally = run(again.finish())
    assert tally.successful == 10 and [*tally.notes] == [note]


def plan_of(found: Sequence[Outcome]) -> bytes:
    return unseal(plan_bytes([Item(one.number, one.source, "", 0, "", "") for one in found]), "")


def test_report__whose_result_files_are_not_there_as_written_does_not_count_for_them(tries: Tries) -> None:
    tries.put("report-10-aa.parquet", [outcome(number)._replace(bytes_written=3) for number in range(10, 20)])
    for number in range(10, 20):
        (tries.results / f"{number}_result.txt").write_bytes(b"abc")
    (tries.results / "12_result.txt").write_bytes(b"")
    (tries.results / "13_result.txt").write_bytes(b"ab")
    (tries.results / "14_result.txt").unlink()
    again = tries.resumed(ref(10, 20))
    assert {*range(10, 20)} - again.seen == {12, 13, 14}
    assert again.whole() is None


def test_outcomes__of_a_stop_are_in_the_report_but_the_next_try_sends_the_items_again(tries: Tries) -> None:
    reporter = tries.resumed(ref(10, 14), "aa")
    tries.write_results([outcome(10)])
    add(reporter, outcome(10))
    add(reporter, outcome(11, "The model answered HTTP 400"))
    for number in (12, 13):
        add(reporter, outcome(number, "The run was stopped before it was processed.")._replace(final=False))
    tally = run(reporter.finish())
    assert (tally.successful, tally.failed) == (1, 3)
    assert tries.report("report-10-aa.parquet")[0] == [10, 11, 12, 13]
    again = tries.resumed(ref(10, 14), "bb")
    assert seen(again) == [10, 11]
    assert again.whole() is None
    assert (again.done, again.failed) == (2, 1)


def test_results__are_synced_before_the_report_that_names_them_is_written(
    tries: Tries, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    monkeypatch.setattr(durable, "sync_file_system", lambda folder: steps.append("sync"))
    write = OutputFolder.write

    async def noted(output: OutputFolder, name: str, data: bytes) -> None:
        steps.append(name.rpartition("/")[2].partition("-")[0])
        await write(output, name, data)

    monkeypatch.setattr(OutputFolder, "write", noted)
    reporter = tries.resumed(ref(10, 12))
    add(reporter, outcome(10))
    run(reporter.flush())
    add(reporter, outcome(11))
    run(reporter.finish())
    assert steps == ["sync", "part", "sync", "report"]
