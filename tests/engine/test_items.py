"""One item: what is refused before anything is waited for, and answers of any size."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest
from clients.support import run
from engine.runs import ROWS, Shard, items_of, local_items, make_run
from fakes.model_server import FakeModelServer
from fakes.processes import DEADLINE_SECONDS

from tasks.clients.storage import local_files
from tasks.clients.storage.output_folder import OutputFolder
from tasks.domain.errors import StorageError
from tasks.domain.result import Tally
from tasks.engine import items, reach
from tasks.engine.budget import Budget
from tasks.engine.items import process
from tasks.engine.sent import Sent

MIB = 1 << 20


@pytest.mark.parametrize(
    ("name", "size", "request_", "expected"),
    [
        ("a.png", 12 * MIB, None, "The file has 12582912 bytes; it should be smaller than"),
        ("a.csv", 5 << 30, ROWS, "The file has 5368709120 bytes; it should be not larger than"),
        ("a.txt", 10, ROWS, "A .csv file was expected"),
    ],
)
def test_item__that_is_refused_anyway_waits_for_no_bytes(
    tmp_path: Path, fake: FakeModelServer, name: str, size: int, request_: dict[str, object] | None, expected: str
) -> None:
    (item,) = items_of(str(tmp_path), [name], {name: size})
    run_ = make_run(fake.url, str(tmp_path / "out"), **({"request": request_, "path": "/iris"} if request_ else {}))
    shard = Shard(run_, [item])

    async def work() -> str:
        session = shard.session()
        held = await session.bytes.hold(session.settings.bytes_in_flight)
        try:
            return (await asyncio.wait_for(process(session, item, Sent(Tally())), DEADLINE_SECONDS)).message
        finally:
            held.give_back()
            await session.close()

    assert expected in run(work())


def test_held__bytes_of_an_answer_count_at_once_and_hold_up_the_next() -> None:
    async def work() -> None:
        budget = Budget(10)
        held = await budget.hold(2)
        held.change(25)
        waiting = asyncio.create_task(budget.hold(1))
        other = asyncio.create_task(asyncio.sleep(0))
        await other
        assert not waiting.done()
        held.change(3)
        (await waiting).give_back()
        held.give_back()
        assert await budget.take(10) == 10

    run(work())


def test_answer__that_is_larger_than_is_taken_costs_its_item_only(tmp_path: Path) -> None:
    items = local_items(tmp_path / "in", {"1.jpg": b"FAIL:20mb", "2.jpg": b"good", "3.jpg": b"FAIL:20mb 3"})
    with FakeModelServer() as model:
        shard = Shard(make_run(model.url, str(tmp_path / "out")), items, max_answer_bytes=8 * MIB).infer()
        expected = "The model's answer has more than 8388608 bytes (8 MiB)."
        assert shard.messages == {"1.jpg": expected, "2.jpg": "", "3.jpg": expected}
        assert shard.tally.retries == 0
        assert not shard.has_result("1.jpg")


def test_stop__does_not_wait_for_requests_that_would_be_tried_again_later(tmp_path: Path) -> None:
    texts = {"1.jpg": b"FAIL:429:200:5", "2.jpg": b"FAIL:404"}
    with FakeModelServer("--count-items") as model:
        run_ = make_run(model.url, str(tmp_path / "out"), error_threshold=0)
        shard = Shard(run_, local_items(tmp_path / "in", texts))

        async def work() -> None:
            session = shard.session()
            try:
                await shard.store_plan(session)
                from tasks.engine.shard import infer_shard

                # The server asks to wait 200 seconds.
                await asyncio.wait_for(infer_shard(session, shard.ref), DEADLINE_SECONDS)
                await shard.read_report(session)
            finally:
                await session.close()

        run(work())
        assert "HTTP 404" in shard.messages["2.jpg"]
        # Depending on which was first: stopped while it waited, or not sent at all.
        assert shard.messages["1.jpg"].startswith("Not processed: the run was stopped early")


class Disk:
    """A disk that has no room for results, or for some, for a while: so many tries of everything written."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, full_for: int, never: str = "") -> None:
        self.tries = self.probes = 0
        write = local_files._write

        def tried(path: str, data: bytes, temporary: str) -> None:
            if "_result.txt" in path or "/room-" in path:
                self.tries += 1
                self.probes += "/room-" in path
                if self.tries <= full_for or (never and never in path):
                    raise OSError(errno.ENOSPC, "No space left on device")
            write(path, data, temporary)

        monkeypatch.setattr(local_files, "_write", tried)
        monkeypatch.setattr(items, "FULL_PAUSES_SECONDS", (0.001, 0.002))
        monkeypatch.setattr(reach, "ROOM_PAUSES_SECONDS", (0.001, 0.001, 0.001, 0.001))


@pytest.mark.parametrize("full_for", range(1, 8))
def test_disk__that_is_full_for_a_while_costs_no_item(
    tmp_path: Path, fake: FakeModelServer, monkeypatch: pytest.MonkeyPatch, full_for: int
) -> None:
    shard = Shard(make_run(fake.url, str(tmp_path / "out")), local_items(tmp_path / "in", {"a": b"1"}))
    disk = Disk(monkeypatch, full_for)
    assert shard.infer().messages == {"a": ""}
    assert disk.probes <= 5


def test_disk__that_stays_full_ends_the_run_and_no_item_has_failed(
    tmp_path: Path, fake: FakeModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = Shard(make_run(fake.url, str(tmp_path / "out")), local_items(tmp_path / "in", {"a": b"1", "b": b"2"}))
    Disk(monkeypatch, 10_000)
    with pytest.raises(StorageError, match=r"No space left on device.* a resumed run does the rest"):
        shard.infer()


def test_disk__without_room_for_one_result_costs_that_one(
    tmp_path: Path, fake: FakeModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = {f"{number}.bin": b"%d" % number for number in range(6)}
    shard = Shard(make_run(fake.url, str(tmp_path / "out")), local_items(tmp_path / "in", contents))
    disk = Disk(monkeypatch, 0, never="3.bin")
    messages = shard.infer().messages
    assert [name for name, message in messages.items() if message] == ["3.bin"]
    assert disk.probes == items.FULL_ROUNDS


def test_output__that_fails_for_another_reason_is_looked_at_once(
    tmp_path: Path, fake: FakeModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look at a bucket that answers with errors lasts as long as it is patient."""
    looks = []

    async def takes_more(_: OutputFolder) -> bool:
        looks.append(1)
        return False

    def refused(path: str, data: bytes, temporary: str) -> None:
        if "_result.txt" in path:
            raise OSError(errno.EIO, "Input/output error")
        write(path, data, temporary)

    write = local_files._write
    monkeypatch.setattr(OutputFolder, "takes_more", takes_more)
    monkeypatch.setattr(local_files, "_write", refused)
    shard = Shard(make_run(fake.url, str(tmp_path / "out")), local_items(tmp_path / "in", {"a": b"1"}))
    with pytest.raises(StorageError, match="Input/output error"):
        shard.infer()
    assert looks == [1]
