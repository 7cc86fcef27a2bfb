"""Bytes that are read are those that were listed: never half of a file or object, nor an error in its place."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from clients.support import run
from fakes.odd_s3_server import OddS3Server

from tasks.clients.storage import local_files, object_store
from tasks.clients.storage.failures import ObjectError, Unreachable
from tasks.clients.storage.storage import Storage
from tasks.domain.credentials import Credentials
from tasks.domain.paths import parse_address
from tasks.domain.settings import Settings

ERROR = b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>InternalError</Code><Message>Sorry</Message></Error>'
KEYS = ["in/o.bin", "in//o.bin"]
"""One that obstore reads, and one that s3fs does."""


class Server(OddS3Server):
    """Answers with what ``body`` makes of an object, counted from 1; without an ETag if it is shown so."""

    def __init__(self, key: str, data: bytes, body: Callable[[int, bytes], tuple[bytes, bool]]) -> None:
        super().__init__({"data": {key: data}})
        self._body = body
        self.gets = 0

    def object_body(self, key: str, data: bytes) -> tuple[bytes, bool]:
        self.gets += 1
        return self._body(self.gets, data)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "READ_PAUSES_SECONDS", (0.0, 0.0, 0.0))


def read(server: OddS3Server, key: str, size: int) -> bytes:
    """An object that was listed with this size."""
    names = {"access_key_id": "a", "secret_access_key": "b", "region": "us-east-1"}
    keys = Credentials.model_validate({"endpoint_url": server.endpoint, **names})

    async def work() -> bytes:
        storage = Storage(Settings(storage_retry_seconds=1), {"s3": keys})
        try:
            return await storage.read(parse_address(f"s3://data/{key}"), 1 << 20, size)
        finally:
            await storage.close()

    return run(work())


def listed_then_read(server: OddS3Server, key: str, meanwhile: Callable[[], None], times: int = 3) -> bytes:
    """An object that something happens to between its listing and its reading."""
    names = {"access_key_id": "a", "secret_access_key": "b", "region": "us-east-1"}
    keys = Credentials.model_validate({"endpoint_url": server.endpoint, **names})
    folder = parse_address("s3://data/in")

    async def work() -> bytes:
        storage = Storage(Settings(storage_retry_seconds=1), {"s3": keys})
        try:
            ((name, size, version),) = [one async for one in storage.list(folder)]
            meanwhile()
            for _ in range(times):
                data = await storage.read(folder.child(name), 1 << 20, size, version)
            return data
        finally:
            await storage.close()

    return run(work())


def stream(server: OddS3Server, key: str) -> bytes:
    """The same, piece by piece."""
    names = {"access_key_id": "a", "secret_access_key": "b", "region": "us-east-1"}
    keys = Credentials.model_validate({"endpoint_url": server.endpoint, **names})

    async def work() -> bytes:
        storage = Storage(Settings(storage_retry_seconds=1), {"s3": keys})
        try:
            return b"".join([chunk async for chunk in storage.stream(parse_address(f"s3://data/{key}"))])
        finally:
            await storage.close()

    return run(work())


def half(data: bytes) -> bytes:
    """The first half."""
    return data[: len(data) // 2]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("wrong", [half, lambda data: data + b"x", lambda data: b""])
def test_object__of_another_size_is_read_again(key: str, wrong: Callable[[bytes], bytes]) -> None:
    with Server(key, b"whole data", lambda at, data: (wrong(data) if at == 1 else data, True)) as server:
        assert read(server, key, 10) == b"whole data"
        assert server.gets == 2


@pytest.mark.parametrize("key", KEYS)
def test_object__as_listed_is_read_once(key: str) -> None:
    with Server(key, b"whole data", lambda at, data: (data, True)) as server:
        assert read(server, key, 10) == read(server, key, -1) == b"whole data"
        assert server.gets == 2
        assert not [line for line in server.lines if line.startswith("HEAD")]


@pytest.mark.parametrize("key", KEYS)
def test_object__that_has_changed_says_both_sizes(key: str) -> None:
    with Server(key, b"whole data", lambda at, data: (data, True)) as server:
        with pytest.raises(ObjectError) as raised:
            read(server, key, 7)
        assert raised.value.cause == ("The object has changed since it was listed: it had 7 bytes, it has 10 now.")
        assert server.gets == 4


@pytest.mark.parametrize("key", KEYS)
def test_object__of_the_same_size_that_is_another_one_has_changed(key: str) -> None:
    with OddS3Server({"data": {key: b"whole data"}}) as server:

        def change() -> None:
            server.buckets["data"][key] = b"other data"

        assert listed_then_read(server, key, lambda: None) == b"whole data"
        with pytest.raises(ObjectError) as raised:
            listed_then_read(server, key, change)
    assert raised.value.cause == ("The object has changed since it was listed: it has the same size, but another ETag.")


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("shown", ["W/x", ""])
def test_object__of_a_storage_that_lists_other_etags_than_it_answers_with_is_read(key: str, shown: str) -> None:
    class Other(OddS3Server):
        def etag(self, key: str, data: bytes, *, listed: bool) -> str:
            return shown if listed else super().etag(key, data, listed=listed)

    with Other({"data": {key: b"whole data"}}) as server:
        assert listed_then_read(server, key, lambda: None) == b"whole data"
        assert listed_then_read(server, key, lambda: None, times=20) == b"whole data"
        asked_again = [line for line in server.lines if "max-keys=1&" in f"{line}&"]
        # Not for each object: after some it is known what kind of storage it is.
        assert len(asked_again) == (3 + object_store.OTHER_VERSIONS if shown else 0)


def test_object__that_has_changed_is_noticed_though_the_listing_of_another_one_lags() -> None:
    class Lagging(OddS3Server):
        def etag(self, key: str, data: bytes, *, listed: bool) -> str:
            return "before" if listed and key == "in/0" else super().etag(key, data, listed=listed)

    with Lagging({"data": {f"in/{number}": b"before" for number in range(20)}}) as server:
        names = {"access_key_id": "a", "secret_access_key": "b", "region": "us-east-1"}
        keys = Credentials.model_validate({"endpoint_url": server.endpoint, **names})

        async def work() -> list[tuple[str, bool]]:
            storage = Storage(Settings(storage_retry_seconds=1), {"s3": keys})
            folder = parse_address("s3://data/in")
            try:
                found = [one async for one in storage.list(folder)]
                server.buckets["data"].update(dict.fromkeys((f"in/{number}" for number in range(10)), b"behind"))
                changed = []
                await storage.read(folder.child(found[2][0]), 1 << 20, *found[2][1:])  # one that has not changed
                for name, size, version in found:
                    try:
                        await storage.read(folder.child(name), 1 << 20, size, version)
                    except ObjectError as error:
                        changed.append((name, "another ETag" in error.cause))
                return changed
            finally:
                await storage.close()

        assert run(work()) == [(str(number), True) for number in range(10)]


def test_object__with_another_etag_has_changed_if_the_listing_cannot_be_asked_again() -> None:
    class Silent(OddS3Server):
        refuses = False

        def take_fault(self) -> int | None:
            return 403 if self.refuses and "list-type" in self.lines[-1] else None

    with Silent({"data": {"in/o.bin": b"whole data"}}) as server:

        def change() -> None:
            server.buckets["data"]["in/o.bin"] = b"other data"
            server.refuses = True

        with pytest.raises(ObjectError, match="another ETag") as raised:
            listed_then_read(server, "in/o.bin", change)
    assert not isinstance(raised.value, Unreachable)


def test_object__that_differs_each_time_says_so() -> None:
    with Server("o", b"whole data", lambda at, data: (data[:at], True)) as server:
        with pytest.raises(ObjectError) as raised:
            read(server, "o", 10)
        assert raised.value.cause == (
            "The storage answers differently each time (1 bytes, 2 bytes, 3 bytes, 4 bytes); "
            "the listing shows 10 bytes."
        )


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("size", [-1, len(ERROR)])
def test_error_document__with_status_200_is_not_the_object(key: str, size: int) -> None:
    whole = b"x" * len(ERROR)
    with Server(key, whole, lambda at, data: (data, True) if at == 3 else (ERROR, False)) as server:
        assert read(server, key, size) == whole
    with Server(key, whole, lambda at, data: (ERROR, False)) as server, pytest.raises(ObjectError) as raised:
        read(server, key, size)
    assert raised.value.cause == "The storage answers with an error document in the place of the object."


def test_object__may_look_like_an_error_document_if_it_is_stored_so() -> None:
    with Server("o", ERROR, lambda at, data: (data, True)) as server:
        assert read(server, "o", -1) == ERROR


@pytest.mark.parametrize("key", KEYS[:1])
def test_stream__of_another_size_than_the_storage_told_is_begun_again(key: str) -> None:
    with Server(key, b"whole data", lambda at, data: (half(data) if at == 1 else data, True)) as server:
        assert stream(server, key) == b"whole data"


@pytest.mark.parametrize("key", KEYS)
def test_stream__that_stays_short_is_an_error(key: str) -> None:
    with (
        Server(key, b"whole data", lambda at, data: (half(data), True)) as server,
        pytest.raises(ObjectError) as raised,
    ):
        stream(server, key)
    assert "it had 10 bytes, it has 5 now" in raised.value.cause


@pytest.mark.parametrize("size", [3, 5, 200_000])
def test_local_file__of_another_size_has_changed(tmp_path: Path, size: int) -> None:
    (tmp_path / "file").write_bytes(b"data")
    with pytest.raises(ObjectError) as raised:
        run(local_files.read(str(tmp_path / "file"), None, size))
    assert raised.value.cause == f"The file has changed since it was listed: it had {size} bytes, it has 4 now."


@pytest.mark.parametrize("change", ["grows", "shrinks", "is written"])
@pytest.mark.parametrize("verb", ["read", "stream"])
def test_local_file__that_is_written_while_it_is_read_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, verb: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"data" * 1000)
    really = os.fstat
    looks = []

    def fstat(descriptor: int) -> os.stat_result:
        status = really(descriptor)
        if stat.S_ISREG(status.st_mode):
            looks.append(status)
        if len(looks) == 1:
            path.write_bytes({"grows": b"data" * 1001, "shrinks": b"data"}.get(change, b"DATA" * 1000))
            os.utime(path, ns=(1, 1))
        return status

    monkeypatch.setattr(os, "fstat", fstat)

    async def work() -> None:
        if verb == "read":
            await local_files.read(str(path), None, 4000)
        else:
            async for _ in Storage(Settings()).stream(parse_address(str(path))):
                pass

    with pytest.raises(ObjectError, match="was written while it was being read"):
        run(work())
    assert looks


@pytest.mark.parametrize("key", KEYS)
def test_object__that_another_one_comes_for_now_and_then_is_read_again(key: str) -> None:
    """A cache that mixes objects up, with an ETag of its own: the listing tells the right one all the time."""

    with Server(key, b"whole data", lambda at, data: (data if at % 3 else b"other data", True)) as server:
        assert listed_then_read(server, key, lambda: None, times=9) == b"whole data"
        assert server.gets > 9
