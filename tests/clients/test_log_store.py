"""The log store on each kind of storage: written by many at once, read by time, cleared of what is too old."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from clients.places import Place

from tasks.clients.logs import log_store
from tasks.clients.logs.log_store import KEPT_DAYS, LogStore, LogStream, Stream
from tasks.clients.storage.failures import ObjectError
from tasks.clients.storage.storage import Storage
from tasks.domain.server_log import LogRecord, stream_name

NOON = datetime(2026, 1, 10, 12, 0, 0, tzinfo=UTC)


def records(stream: str, count: int, start: datetime = NOON) -> list[LogRecord]:
    return [
        LogRecord(start + timedelta(milliseconds=number), "digits", stream, "t", 0, f"line {number} ü\n{{")
        for number in range(count)
    ]


def store_of(place: Place, storage: Storage) -> LogStore:
    return LogStore(storage, str(place.root))


def part(when: datetime, number: int = 0) -> str:
    return f"{int(when.timestamp() * 1000):013d}-{number:06d}.jsonl"


async def whole(store: LogStore, stream: Stream) -> list[LogRecord]:
    return [record for name in stream.parts for record in await store.records(stream, name)]


async def write(store: LogStore, stream: str, written: Sequence[LogRecord]) -> None:
    writing = LogStream(store, "digits", stream)
    for record in written:
        writing.add(record)
    await writing.close()


def test_streams__written_at_once_are_read_as_they_were_written(place: Place) -> None:
    streams = [stream_name("task", number) for number in range(3)]
    starts = {stream: NOON + timedelta(hours=number) for number, stream in enumerate(streams)}

    async def work(storage: Storage) -> None:
        store = store_of(place, storage)
        await asyncio.gather(*(write(store, one, records(one, 50, starts[one])) for one in streams))
        found = await store.streams("digits", NOON)
        assert [one.name for one in found] == streams
        for one in found:
            assert await whole(store, one) == records(one.name, 50, starts[one.name])

    place.do(work)


def test_stream__is_written_every_few_seconds_and_when_it_is_large(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_store, "FLUSH_BYTES", 100)
    written = records("s", 40)

    async def work(storage: Storage) -> None:
        store = store_of(place, storage)
        stream = LogStream(store, "digits", "s")
        for record in written[:20]:
            stream.add(record)
        while not place.names():
            await asyncio.sleep(0.01)
        monkeypatch.setattr(log_store, "FLUSH_BYTES", 1 << 30)
        monkeypatch.setattr(log_store, "FLUSH_SECONDS", 0.05)
        stream.add(written[20])
        await stream.close()
        await write(store, "s", written[21:])
        [found] = await store.streams("digits", NOON)
        assert len(found.parts) == 3 and await whole(store, found) == written

    place.do(work)
    assert len(place.names()) == 3


def test_records__leave_out_what_is_none(place: Place) -> None:
    [record] = records("s", 1)
    place.put(f"digits/s/{part(NOON)}", b"broken\n" + record.to_json() + b'{"time": 1}\n')
    place.put("digits/s/README.txt", b"not ours")
    place.put("digits/note.txt", b"not ours")

    async def work(storage: Storage) -> None:
        store = store_of(place, storage)
        [found] = await store.streams("digits", NOON)
        assert found == Stream("digits", "s", (part(NOON),))
        assert await whole(store, found) == [record]
        assert await store.streams("other", NOON) == []
        assert await store.records(Stream("other", "s", ()), part(NOON)) == []

    place.do(work)


def test_streams__leave_out_what_is_too_old(place: Place) -> None:
    too_old = NOON - timedelta(days=KEPT_DAYS, milliseconds=1)
    young = NOON - timedelta(days=KEPT_DAYS)
    for name in (f"gone/{part(too_old)}", f"both/{part(too_old)}", f"both/{part(young, 1)}", f"new/{part(NOON)}"):
        place.put(f"digits/{name}", b"x")

    async def work(storage: Storage) -> None:
        found = await store_of(place, storage).streams("digits", NOON)
        assert found == [Stream("digits", "both", (part(young, 1),)), Stream("digits", "new", (part(NOON),))]

    place.do(work)


def test_prune__removes_its_own_old_objects_only(place: Place) -> None:
    too_old = part(NOON - timedelta(days=KEPT_DAYS, milliseconds=1))
    young = part(NOON - timedelta(days=KEPT_DAYS))
    stay = [
        f"digits/both/{young}", f"digits/young/{young}", "digits/old/notes.txt", too_old, f"digits/{too_old}",
        f"a b/old/{too_old}", f"digits/old/deeper/{too_old}", "digits/old/0000000000001-1.jsonl",
    ]  # fmt: skip
    gone = [f"digits/both/{too_old}", f"digits/old/{too_old}", f"other/old/{too_old}", f"digits/empty/{too_old}"]
    for name in stay + gone:
        place.put(name, b"x")

    async def work(storage: Storage) -> int:
        store = store_of(place, storage)
        removed = await store.prune(NOON)
        assert await store.prune(NOON) == 0
        return removed

    assert place.do(work) == len(gone)
    assert sorted(place.names()) == sorted(stay)
    if place.kind == "local":
        root = Path(place.root.path)
        assert not (root / "digits/empty").exists() and not (root / ".tmp").exists()


def test_prune__of_a_store_that_is_not_there_yet(tmp_path: Path, place: Place) -> None:
    async def work(storage: Storage) -> int:
        return await LogStore(storage, f"{place.root}/not/yet").prune(NOON)

    assert place.do(work) == 0


@pytest.mark.parametrize("name", ["", "..", "a/b", "a b", "x" * 129, "ü"])
def test_names__that_would_lead_elsewhere_are_refused(place: Place, name: str) -> None:
    async def work(storage: Storage) -> None:
        store = store_of(place, storage)
        with pytest.raises(ValueError, match="is no group"):
            await store.streams(name, NOON)
        with pytest.raises(ValueError, match="is no stream"):
            await store.records(Stream("digits", name, ()), part(NOON))
        with pytest.raises(ValueError, match="of the log store"):
            LogStream(store, "digits", name)

    place.do(work)


def test_store__that_cannot_be_written_costs_one_warning(
    tmp_path: Path, place: Place, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_store, "FLUSH_BYTES", 1)
    address = f"{place.root.scheme}://no-such-bucket/logs"
    if place.kind == "local":
        (tmp_path / "file").write_bytes(b"")
        address = str(tmp_path / "file")

    async def work(storage: Storage) -> None:
        store = LogStore(storage, address)
        with pytest.raises(ObjectError):
            await store.append(f"digits/s/{part(NOON)}", records("s", 1))
        stream = LogStream(store, "digits", "s")
        for record in records("s", 3):
            stream.add(record)
            await asyncio.sleep(0.05)
        await stream.close()

    with caplog.at_level(logging.WARNING):
        place.do(work)
    assert caplog.text.count("log store not written") == 1
