"""What the items of one process share: bytes, the reason to stop, a folder; and one item's trouble stays its own."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from clients.places import make_place
from clients.support import FAKE_MODEL_SERVER, processes_with, run
from engine.runs import ROWS, Shard, items_of, local_items, make_run, shard_of
from fakes.model_server import FakeModelServer
from fakes.processes import meanwhile, poll
from fakes.s3_server import S3Server

from tasks.clients.storage.storage import Storage
from tasks.domain.concurrency import START
from tasks.domain.instance import GivenEnvironment
from tasks.domain.paths import Address
from tasks.domain.secret_reference import resolved
from tasks.domain.stop import Stop
from tasks.engine.budget import Budget
from tasks.engine.shard import infer_shard
from tasks.prefect_side.run_logs import plain_errors

MIB = 1 << 20


async def settled() -> None:
    """Let everything run that can."""
    for _ in range(50):
        await asyncio.sleep(0)


# --- bytes


def test_held__bytes_shrink_once_and_are_given_back_once() -> None:
    async def work() -> None:
        budget = Budget(10)
        held = await budget.hold(8)
        held.shrink(9)  # never more than it has
        waiting = asyncio.create_task(budget.hold(5))
        await settled()
        assert not waiting.done()
        held.shrink(5)
        other = await waiting
        third = asyncio.create_task(budget.hold(10))
        held.give_back()
        held.give_back()
        await settled()
        assert not third.done()  # five of ten are still held
        other.shrink(0)
        (await third).give_back()
        other.give_back()
        assert await budget.take(10) == 10

    run(work())


class Reads:
    """Counts the reads of items that are under way at once: each waits until no other can join it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fail: Callable[[str], None] = lambda _: None) -> None:
        self.at_once = self.most = self.total = 0
        read = Storage.read

        async def counted(
            storage: Storage, address: Address, max_bytes: int | None = None, size: int = -1, version: int = 0
        ) -> bytes:
            if max_bytes is None:  # not an item: plan or report
                return await read(storage, address)
            self.at_once += 1
            self.total += 1
            self.most = max(self.most, self.at_once)
            try:
                await settled()
                fail(address.name)
                return await read(storage, address, max_bytes, size, version)
            finally:
                self.at_once -= 1

        monkeypatch.setattr(Storage, "read", counted)


@pytest.mark.parametrize(("known", "most"), [(False, 2), (True, 40)])
def test_items__of_unknown_size_count_as_the_largest_until_they_are_read(
    tmp_path: Path, fake: FakeModelServer, monkeypatch: pytest.MonkeyPatch, known: bool, most: int
) -> None:
    items = local_items(tmp_path / "in", {f"{number}.jpg": b"x" * number for number in range(40)})
    reads = Reads(monkeypatch)
    shard = Shard(
        make_run(fake.url, str(tmp_path / "out")), items if known else [item._replace(size=-1) for item in items],
        bytes_in_flight=24 * MIB, max_item_bytes=12 * MIB,
    ).infer()  # fmt: skip
    assert set(shard.messages.values()) == {""}
    assert (reads.total, reads.at_once) == (40, 0)
    assert reads.most == most if not known else reads.most > 8


def test_items__of_unknown_size_in_a_bucket_are_read_two_at_a_time_and_answered_many_at_a_time(
    tmp_path: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = make_place("s3", tmp_path, s3_server, "session-unknown")
    names = [f"{number:02d}.jpg" for number in range(40)]
    gate = tmp_path / "gate"
    for name in names:
        place.put(f"in/{name}", f"FAIL:until:{gate} ".encode() + name.encode() * 100)
    reads = Reads(monkeypatch)

    def answer() -> None:
        try:
            # What is read holds no more than its own bytes.
            poll(lambda: model.stats()["max_in_flight"] == START, "as many requests in flight as at the start")
        finally:
            gate.touch()

    with FakeModelServer() as model, meanwhile(answer):
        shard = Shard(
            make_run(model.url, str(tmp_path / "out"), max_concurrency=16), items_of(f"{place.root}/in", names),
            bytes_in_flight=24 * MIB, max_item_bytes=12 * MIB,
        )  # fmt: skip
        shard.credentials = place.credentials
        shard.infer()
        assert set(shard.messages.values()) == {""}
        assert reads.most == 2


def test_tables__of_unknown_size_are_all_processed_within_few_bytes(
    tmp_path: Path, fake: FakeModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = local_items(tmp_path / "in", {f"{number}.csv": b"1,2\n3,4\n" for number in range(12)})
    reads = Reads(monkeypatch)
    run_ = make_run(fake.url, str(tmp_path / "out"), request=ROWS, path="/iris")
    shard = Shard(run_, [item._replace(size=-1) for item in items], bytes_in_flight=24 * MIB).infer()
    assert set(shard.messages.values()) == {""}
    assert (reads.total, reads.most) == (12, 1)  # its text and answers take several times its bytes


def test_items__that_fail_give_all_their_bytes_back(tmp_path: Path, fake: FakeModelServer) -> None:
    names = [f"{number}.jpg" for number in range(30)]
    items = items_of(str(tmp_path / "nowhere"), names)
    shard = Shard(make_run(fake.url, str(tmp_path / "out")), items, bytes_in_flight=12 * MIB).infer()
    assert all(message.startswith("Download file failed.") for message in shard.messages.values())


# --- one item's trouble


def test_item__that_meets_a_fault_of_ours_fails_and_no_other_does(
    tmp_path: Path, fake: FakeModelServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plain_errors()  # as in the process of a run

    def fail(name: str) -> None:
        if name == "5.jpg":
            raise RuntimeError("secret detail")

    Reads(monkeypatch, fail)
    shard = Shard(
        make_run(fake.url, str(tmp_path / "out")),
        local_items(tmp_path / "in", {f"{number}.jpg": b"x" for number in range(12)}),
        bytes_in_flight=MIB,
    ).infer()
    messages = shard.messages
    assert messages.pop("5.jpg") == "Unexpected RuntimeError."
    assert set(messages.values()) == {""}
    assert "unexpected item=5: An unexpected error (RuntimeError): secret detail." in caplog.text


@pytest.mark.parametrize("address", ["s3://a b/x.jpg", "s3://[/x.jpg", "s3://你好/x.jpg", "gopher://x/x.jpg", ""])
def test_item__whose_address_is_nonsense_fails_and_no_other_does(
    tmp_path: Path, fake: FakeModelServer, address: str
) -> None:
    items = local_items(tmp_path / "in", {"1.jpg": b"1", "2.jpg": b"2", "3.jpg": b"3"})
    items[1] = items[1]._replace(address=address, size=-1)
    shard = Shard(make_run(fake.url, str(tmp_path / "out")), items).infer()
    assert shard.messages["2.jpg"]
    assert (shard.messages["1.jpg"], shard.messages["3.jpg"]) == ("", "")


# --- stopping


def test_stop__keeps_its_first_reason_and_ends_the_sending(tmp_path: Path, fake: FakeModelServer) -> None:
    items = local_items(tmp_path / "in", {f"{number}": b"x" for number in range(20)})
    shard = Shard(make_run(fake.url, str(tmp_path / "out")), items)

    async def work() -> None:
        session = shard.session()
        try:
            await shard.store_plan(session)
            session.stop(Stop(reason="outage", cause="of the first reason"))
            session.stop(Stop(reason="threshold", cause="of another one"))
            await infer_shard(session, shard.ref)
            await shard.read_report(session)
        finally:
            await session.close()

    run(work())
    expected = "Not processed: the run was stopped early because of the first reason."
    assert set(shard.messages.values()) == {expected} and len(shard.outcomes) == 20
    assert "/" not in fake.stats()["requests"]


# --- the folder of the instances' logs


def temporary() -> set[str]:
    return {path.name for path in Path(tempfile.gettempdir()).glob("thresher-*")}


def test_folder__of_a_session_is_there_only_while_it_has_instances(tmp_path: Path) -> None:
    home = tmp_path / "package"
    home.mkdir()
    (home / "config.json").write_text("{}")
    (home / "run.sh").write_text(f"exec {sys.executable} {FAKE_MODEL_SERVER}\n")
    items = local_items(tmp_path / "in", {"1.jpg": b"1"})
    shard = Shard(make_run("package", str(tmp_path / "out"), package=str(home)), items, cache=tmp_path / "cache")
    before = temporary()

    async def work() -> None:
        session = shard.session()
        try:
            await shard.store_plan(session)
            assert temporary() == before
            await session.start()
            (made,) = temporary() - before
            assert list((Path(tempfile.gettempdir()) / made).iterdir())
            await infer_shard(session, shard.ref)
        finally:
            await session.close()
        assert temporary() == before

    run(work())
    assert processes_with(str(tmp_path)) == []


def test_folder__is_not_made_for_a_server_that_runs_already(
    tmp_path: Path, fake: FakeModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> str:
        raise AssertionError("no folder is needed")

    items = local_items(tmp_path / "in", {"1.jpg": b"1"})
    shard = Shard(make_run(fake.url, str(tmp_path / "out")), items)
    assert shard.ref == shard_of(items)
    monkeypatch.setattr(tempfile, "mkdtemp", never)
    assert shard.infer().messages == {"1.jpg": ""}


def test_secrets__that_a_server_prints_before_it_ends_are_hidden(tmp_path: Path) -> None:
    home = tmp_path / "package"
    home.mkdir()
    (home / "config.json").write_text("{}")
    (home / "run.sh").write_text('echo "$DB_PASSWORD and ${DB_PASSWORD}x, $PLAIN"; exit 3\n')
    given = {"DB_PASSWORD": "hunter22", "PLAIN": "visible"}
    run_ = make_run("package", str(tmp_path / "out"), package=str(home), environment=given)
    shard = Shard(run_, local_items(tmp_path / "in", {"1.jpg": b"1"}), cache=tmp_path / "cache")

    async def environment() -> GivenEnvironment:
        return resolved(given, {}, run_.service.secret_variables)

    async def work() -> str:
        session = shard.session()
        session.servers._environment = environment
        try:
            with pytest.raises(Exception, match="status 3") as caught:
                await session.start()
            return str(caught.value)
        finally:
            await session.close()

    said = run(work())
    assert "*** and ***x, visible" in said and "hunter22" not in said
    assert "hunter22" not in json.dumps(repr(run_.service.secret_variables))
