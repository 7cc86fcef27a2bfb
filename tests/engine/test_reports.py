"""Reports of shards that are cut while they are worked on, lost, and taken up again, in one try or in another."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from engine.runs import items_of, local_items, make_run, no_environment
from engine.tries import FOLDER, Tries, add, outcome, outcomes, ref, run, seen
from fakes.model_server import FakeModelServer

from tasks.clients.storage.failures import ObjectError
from tasks.clients.tables import plan_bytes
from tasks.domain.item import Item
from tasks.domain.run import Plan, Run, ShardDone, ShardRef
from tasks.domain.settings import Settings
from tasks.engine.publishing import publish_run
from tasks.engine.session import Session
from tasks.engine.shard import ShardWork, infer_shard


@pytest.fixture
def tries(tmp_path: Path) -> Tries:
    return Tries(tmp_path)


# -- parts and reports


def test_report__has_every_outcome_in_order_and_replaces_its_parts(tries: Tries) -> None:
    reporter = tries.resumed(ref(10, 14))
    for number in (12, 10):
        add(reporter, outcome(number))
    run(reporter.flush())
    assert [name.rpartition("-")[0] for name in tries.names] == ["part-10-aa"]
    for number in (13, 11):
        add(reporter, outcome(number, "no"))
    tally = run(reporter.finish())
    assert tries.names == ["report-10-aa.parquet"]
    assert tries.report("report-10-aa.parquet")[0] == [10, 11, 12, 13]
    assert (tally.successful, tally.failed, reporter.done, reporter.failed) == (2, 2, 4, 2)


def test_task__that_is_run_again_in_the_same_try_goes_on_behind_its_parts(tries: Tries) -> None:
    first = tries.resumed(ref(10, 20))
    tries.write_results(outcomes(10, 20))
    add(first, outcome(10))
    add(first, outcome(15))
    run(first.flush())
    again = tries.resumed(ref(10, 20))
    assert seen(again) == [10, 15]
    assert again.whole() is None
    for number in {*range(10, 20)} - again.seen:
        add(again, outcome(number))
    run(again.finish())
    assert tries.names == ["report-10-aa.parquet"]  # also the parts of the one before are gone
    assert tries.report("report-10-aa.parquet")[0] == [*range(10, 20)]


def test_report__that_was_written_already_is_not_written_again(tries: Tries) -> None:
    tries.put("report-10-aa.parquet", outcomes(10, 20))
    again = tries.resumed(ref(10, 20))
    found = again.whole()
    assert found is not None
    assert found[0] == f"{FOLDER}/report-10-aa.parquet"
    assert (found[1].successful, found[1].requests, again.done) == (10, 10, 10)


# -- cuts


def test_cut__holds_for_a_task_that_is_run_again_in_the_same_try(tries: Tries) -> None:
    reporter = tries.resumed(ref(10, 30))
    run(reporter.shrink(ref(10, 24)))
    run(reporter.shrink(ref(10, 17)))
    assert tries.names == ["cut-10-aa-17", "cut-10-aa-24"]
    assert tries.resumed(ref(10, 30)).shard == ref(10, 17)


def test_cut__is_of_no_meaning_in_the_next_try_nor_for_other_parts(tries: Tries) -> None:
    reporter = tries.resumed(ref(10, 30))
    run(reporter.shrink(ref(10, 17)))
    assert tries.resumed(ref(10, 30), "bb").shard == ref(10, 30)
    assert tries.resumed(ref(17, 30)).shard == ref(17, 30)
    assert tries.resumed(ref(1, 30)).shard == ref(1, 30)


def test_cut__of_outcomes_from_an_earlier_try_leaves_them_to_who_gets_the_part(tries: Tries) -> None:
    tries.put("part-10-aa-1.parquet", [outcome(11), outcome(25), outcome(26, "no")])
    reporter = tries.resumed(ref(10, 30), "bb")
    assert (reporter.done, reporter.failed) == (3, 1)
    run(reporter.shrink(ref(10, 24)))
    assert (reporter.done, reporter.failed) == (1, 0)
    other = tries.resumed(ref(24, 30), "bb")
    assert (seen(other), other.done, other.failed) == ([25, 26], 2, 1)
    for number in {*range(10, 24)} - {11}:
        add(reporter, outcome(number))
    for number in {*range(24, 30)} - other.seen:
        add(other, outcome(number))
    run(reporter.finish())
    run(other.finish())
    assert tries.report("report-10-bb.parquet")[0] == [*range(10, 24)]
    assert tries.report("report-24-bb.parquet")[0] == [*range(24, 30)]


def test_cut__that_cannot_be_stored_changes_nothing(tries: Tries) -> None:
    reporter = tries.resumed(ref(10, 30))
    shutil.rmtree(tries.scratch.parents[2])
    with pytest.raises(ObjectError):
        run(reporter.shrink(ref(10, 24)))
    assert reporter.shard == ref(10, 30)


# -- siblings and earlier tries


def test_siblings__of_the_same_try_are_not_even_read(tries: Tries) -> None:
    tries.put("part-40-aa-1.parquet", outcomes(40, 50))
    tries.put("report-10-aa.parquet", outcomes(10, 20))
    tries.scratch.joinpath("report-50-aa.parquet").write_bytes(b"not to be read")
    tries.scratch.joinpath("part-5-aa-17.parquet").write_bytes(b"not to be read")
    tries.scratch.joinpath("report-60-00.parquet").write_bytes(b"begins behind it")
    reporter = tries.resumed(ref(20, 40))
    assert (seen(reporter), reporter.done, reporter.sent.requests) == ([], 0, 0)


def test_siblings__of_earlier_tries_are_each_taken_in_by_one_only(tries: Tries) -> None:
    tries.put("report-10-aa.parquet", outcomes(10, 20))  # a part that was done
    tries.put("part-20-aa-1.parquet", outcomes(20, 24))  # one that was not
    tries.put("part-20-aa-2.parquet", [outcome(23), outcome(28)])  # and who went on with it
    whole = tries.resumed(ref(10, 30), "bb")
    assert seen(whole) == [*range(10, 24), 28]
    assert (whole.done, len(whole.seen)) == (15, 15)
    assert whole.whole() is None
    # In a third try the parts are other ones.
    parts = [tries.resumed(ref(first, end), "cc") for first, end in ((10, 15), (15, 22), (22, 30))]
    assert [number for part in parts for number in seen(part)] == seen(whole)
    assert [part.done for part in parts] == [5, 7, 3]


def test_report__of_another_try_is_taken_over_as_it_is(tries: Tries) -> None:
    tries.put("report-10-aa.parquet", outcomes(10, 20))
    before = tries.scratch.joinpath("report-10-aa.parquet").stat()
    reporter = tries.resumed(ref(10, 20), "bb")
    found = reporter.whole()
    assert found is not None
    assert (found[0], found[1].successful, found[1].requests) == (f"{FOLDER}/report-10-aa.parquet", 10, 10)
    assert tries.resumed(ref(10, 21), "bb").whole() is None
    assert tries.resumed(ref(10, 19), "bb").whole() is None  # it says more than that
    assert tries.resumed(ref(11, 20), "bb").whole() is None
    after = tries.scratch.joinpath("report-10-aa.parquet").stat()
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)


def test_reports__that_say_more_than_a_part_do_not_count_its_requests_again(tries: Tries) -> None:
    tries.put("report-10-aa.parquet", outcomes(10, 20))
    left, right = tries.resumed(ref(10, 15), "bb"), tries.resumed(ref(15, 20), "bb")
    assert (left.done, right.done) == (5, 5)
    assert left.sent.requests + right.sent.requests <= 10


# -- work


def work_of(tries: Tries, items: Sequence[Item]) -> ShardWork:
    shard = ref(items[0].number, items[-1].number + 1)
    return ShardWork(tries.session("aa"), tries.resumed(shard), list(items))


def test_hand_back__that_cannot_be_stored_is_taken_again_and_can_be_tried_again(tries: Tries) -> None:
    work = work_of(tries, items_of("/in", [str(number) for number in range(10)]))
    weight = work.supply.weight
    folder = tries.scratch.parents[2]
    shutil.rmtree(folder)
    assert run(work.hand_back(0.5, 2)) == []
    assert (work.supply.shard, work.supply.left, work.supply.weight) == (ref(0, 10), 10, weight)
    assert work.reporter.shard == ref(0, 10)
    folder.mkdir()
    assert run(work.hand_back(0.5, 2)) == [ref(5, 8).model_copy(update={"bytes": weight * 3 // 10}),
                                           ref(8, 10).model_copy(update={"bytes": weight * 2 // 10})]  # fmt: skip
    assert work.reporter.shard == work.supply.shard == ref(0, 5)
    assert tries.names == ["cut-0-aa-5"]


@pytest.mark.parametrize("storage", ["works", "fails for a while"])
def test_shard__of_which_parts_are_handed_back_while_it_is_worked_on_is_done_once(
    tmp_path: Path, fake: FakeModelServer, storage: str
) -> None:
    names = [f"{number:03d}.bin" for number in range(120)]
    items = local_items(tmp_path / "in", dict.fromkeys(names, b"FAIL:slow:0.02"))
    run_ = make_run(fake.url, str(tmp_path / "out"), max_concurrency=1)
    whole = ShardRef(number=0, first_item=0, items=len(items), bytes=0)
    done = run(_share(run_, items, whole, fails=storage != "works"))
    assert len(done) >= 5
    assert [one.shard.first_item for one in done] == [0, *(one.shard.end for one in done)][:-1]
    (manifest,) = (tmp_path / "out").glob("*.manifest")
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    assert [line["source"].rpartition("/")[2] for line in lines] == names
    assert {line["result"] for line in lines} == {"SUCCESSFUL"}
    assert fake.stats()["requests"]["/"] == 120


async def _share(run_: Run, items: Sequence[Item], whole: ShardRef, *, fails: bool) -> list[ShardDone]:
    """Infer a shard by one instance after the other, each of which gives up a half while it works."""
    done: list[ShardDone] = []
    waiting = [whole]
    settings = Settings()
    while waiting:
        session = Session(run_, settings, {}, no_environment, len(items), number=0)
        try:
            await session.output.make()
            await session.output.write(
                f"{session.output.scratch.name}/{whole.plan_name}", plan_bytes(items, whole.owner(run_.task_id))
            )
            mine = waiting.pop(0)
            inferring = asyncio.create_task(infer_shard(session, mine))
            while mine.items > 20 and mine.key not in session.shards.loads and not inferring.done():
                await asyncio.sleep(0.001)
            if before := session.shards.loads.get(mine.key):
                if fails:
                    # What is in the way of the marker makes every write to this folder fail.
                    folder = Path(session.output.scratch.path, whole.folder)
                    hidden = folder.rename(folder.with_name("hidden"))
                    folder.write_bytes(b"")
                    assert await session.shards.hand_back(mine.key, 0.5, 2) == []
                    assert session.shards.loads[mine.key].end == before.end
                    folder.unlink()
                    hidden.rename(folder)
                waiting += await session.shards.hand_back(mine.key, 0.5, 2)
            shard, report, digest, tally = await inferring
            done.append(
                ShardDone(
                    shard=shard, report=report, digest=digest, successful=tally.successful, failed=tally.failed,
                    started_at=1, ended_at=2,
                )
            )  # fmt: skip
        finally:
            await session.close()
    done.sort(key=lambda one: one.shard.first_item)
    session = Session(run_, settings, {}, no_environment)
    planned = Plan(items=len(items), bytes=0, unknown_sizes=0, shards=(whole,))
    await publish_run(run_, planned, done, settings, session.output)
    await session.close()
    return done
