"""Listing folders and buckets: whole, in name order, whatever the names."""

from __future__ import annotations

import socket
import tempfile
from pathlib import Path

import pytest
from clients.places import Place, odd_credentials, one_line
from clients.support import run
from fakes.odd_s3_server import OddS3Server
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.clients.storage import local_files
from tasks.clients.storage.failures import Missing, ObjectError, TooLarge
from tasks.clients.storage.storage import Storage
from tasks.domain.paths import parse_address
from tasks.domain.settings import Settings

ODD_NAMES = [
    "a b", "a%b", "a%20b", "a%2Fb", "a#b", "a?b", "a+b", "a'b", 'a"b', "a&b=c", "a\\b", "a:b", "a;b,c", "{a}", "~a",
    "汉字.jpg", "😀.png", "é", "e\u0301", " head", "tail ", "n" * 255, "汉" * 85, "-rf", "a..b", "...", "*", "$HOME",
    "`x`",
]  # fmt: skip


# --- listing


def test_list__has_every_file_in_the_order_of_whole_names(place: Place) -> None:
    names = ["b", "a/z", "a.b", "a/b/c", "a-b", "a0", "B", "汉/字", "é", "a/b.c", "a b/c", "a/b"]
    names.remove("a/b")  # a file and a folder of one name do not go together on a disk
    for name in names:
        place.put(name, name.encode())
    expected = sorted(((name, len(name.encode())) for name in names), key=lambda one: one[0].encode())
    assert place.list() == expected
    assert place.list("a") == [(name[2:], size) for name, size in expected if name.startswith("a/")]


def test_list__passes_over_neighbours_with_the_same_beginning(place: Place) -> None:
    for name in ("in/1", "in2/2", "in.x", "xin/3"):
        place.put(name, b"")
    assert place.list("in") == [("1", 0)]


def test_list__takes_a_folder_with_and_without_a_slash_at_its_end(place: Place) -> None:
    place.put("in/1", b"x")
    address = parse_address(f"{place.root}/in/")

    async def work(storage: Storage) -> list[tuple[str, int]]:
        return [(name, size) async for name, size, _ in storage.list(address)]

    assert place.do(work) == [("1", 1)]


def test_list__of_an_empty_folder_is_empty(place: Place) -> None:
    assert place.list() == []


def test_list__of_a_missing_folder(place: Place) -> None:
    if place.kind == "local":
        with pytest.raises(ObjectError) as raised:
            place.list("nothing")
        assert isinstance(raised.value, Missing)
    else:
        assert place.list("nothing") == []  # a bucket has no folders


def test_list__of_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")

    async def work() -> None:
        _ = [found async for found in Storage(Settings()).list(parse_address(str(tmp_path / "file")))]

    with pytest.raises(ObjectError, match="It is not a folder"):
        run(work())


def test_list__of_more_than_a_page(place: Place) -> None:
    names = [f"{number:04d}" for number in range(1003)]
    if place.server is not None:  # the server has no upload of many: its folder does
        folder = place.server.folder / place.root.bucket / "place"
        folder.mkdir()
        for name in names:
            (folder / name).touch()
    else:
        for name in names:
            place.put(name, b"")
    assert [name for name, _ in place.list()] == names


def test_list__passes_over_folder_placeholders(bucket: str) -> None:
    content = {"in/": b"", "in/a/": b"", "in/a/1": b"1", "in/b/": b"", "in/empty": b"", "in/c": b"", "in/c/": b""}
    with OddS3Server({bucket: content}, page_size=2) as server:
        found = list_odd(server, f"s3://{bucket}/in")
    assert found == [("a/1", 1), ("c", 0), ("empty", 0)]


@pytest.mark.parametrize("size", [0, 3])
def test_list__tells_a_file_and_a_placeholder_of_one_name_once(bucket: str, size: int) -> None:
    content = {"in/dir": b"x" * size, "in/dir.x": b"1", "in/dir/": b"", "in/dir/1": b"1"}
    with OddS3Server({bucket: content}) as server:
        found = list_odd(server, f"s3://{bucket}/in")
    assert found == [("dir", size), ("dir.x", 1), ("dir/1", 1)]


def list_odd(server: OddS3Server, folder: str) -> list[tuple[str, int]]:
    async def work() -> list[tuple[str, int]]:
        storage = Storage(Settings(), {"s3": odd_credentials(server)})
        try:
            return [(name, size) async for name, size, _ in storage.list(parse_address(folder))]
        finally:
            await storage.close()

    return run(work())


@pytest.mark.parametrize("page_size", [1, 2, 3, 1000])
def test_list__has_keys_that_no_disk_can_hold(page_size: int) -> None:
    keys = ["in//1", "in/./2", "in/../3", "in/a//b", "in/a/4", "in/a.x", "in/a/", "in/b", "in/z", "in/\n", "in/a\x7f"]
    with OddS3Server({"odd": dict.fromkeys(keys, b"x") | {"in/a/": b"", "other": b"x"}}, page_size=page_size) as server:
        found = list_odd(server, "s3://odd/in")
        expected = sorted((key.removeprefix("in/") for key in keys if key != "in/a/"), key=str.encode)
        assert [name for name, _ in found] == expected


def test_list__goes_on_behind_a_placeholder_without_telling_a_key_twice() -> None:
    keys = {"in/d": b"x", "in/d.x": b"x", "in/d/": b"", "in/d//odd": b"x", "in/e": b"x"}
    with OddS3Server({"odd": keys}, page_size=3) as server:
        assert [name for name, _ in list_odd(server, "s3://odd/in")] == ["d", "d.x", "d//odd", "e"]


@pytest.mark.parametrize("key", ["in//1", "in/../3", "in/./2", "/lead", "tail/", "in/\n", "in/a\tb"])
def test_read__finds_keys_that_no_disk_can_hold(key: str) -> None:
    with OddS3Server(
        {"odd": {key: b"here", "1": b"no", "in/1": b"no", "3": b"no", "in/2": b"no", "lead": b"no"}}
    ) as server:

        async def work() -> tuple[bytes, int]:
            storage = Storage(Settings(), {"s3": odd_credentials(server)})
            try:
                address = parse_address(f"s3://odd/{key}")
                with pytest.raises(TooLarge):
                    await storage.read(address, 3)
                return await storage.read(address, 4), await storage.size(address)
            finally:
                await storage.close()

        assert run(work()) == (b"here", 4)


@pytest.mark.parametrize("fault", ["missing", "no bucket", "503", "refused"])
@pytest.mark.slow
def test_read__of_a_key_that_no_disk_can_hold_fails_in_one_line(fault: str) -> None:
    with OddS3Server({"odd": {}}) as server:
        credentials = odd_credentials(server)
        if fault == "503":
            server.fail_next(503, times=100)
        if fault == "refused":
            credentials = credentials.model_copy(update={"endpoint_url": f"http://127.0.0.1:{closed_port()}"})
        name = "none" if fault == "no bucket" else "odd"

        async def work() -> list[ObjectError]:
            storage = Storage(Settings(), {"s3": credentials})
            errors = []
            try:
                for verb in (storage.read, storage.size):
                    with pytest.raises(ObjectError) as raised:
                        await verb(parse_address(f"s3://{name}/in//1"))
                    errors.append(raised.value)
            finally:
                await storage.close()
            return errors

        for error in run(work()):
            one_line(error)
            assert isinstance(error, Missing) == (fault in ("missing", "no bucket"))


def test_list__of_odd_keys_fails_in_one_line() -> None:
    with OddS3Server({"odd": {"in//1": b"x"}}) as server:

        async def work() -> ObjectError:
            storage = Storage(Settings(), {"s3": odd_credentials(server)})
            try:
                with pytest.raises(ObjectError) as raised:
                    async for _ in storage.list(parse_address("s3://odd/in/")):
                        pass
                return raised.value
            finally:
                await storage.close()

        server.listing = _denied_second_time(server)  # type: ignore[method-assign]
        assert "No permission" in one_line(run(work()))


def _denied_second_time(server: OddS3Server):  # type: ignore[no-untyped-def]
    listing = type(server).listing.__get__(server)

    def once(bucket: str, query: dict[str, str]) -> str:
        server.fail_next(403, times=1)
        return listing(bucket, query)

    return once


# --- names


@pytest.mark.parametrize("name", ODD_NAMES)
def test_names__are_kept_to_the_letter(place: Place, name: str) -> None:
    async def work(storage: Storage) -> tuple[bytes, int, bool, list[str]]:
        output = place.output(storage)
        await output.write(f"in/{name}", b"written")
        address = place.root.child(f"in/{name}")
        found = (await storage.read(address), await storage.size(address), await storage.is_file(address))
        return *found, [*await storage.top(place.root.child("in"))]

    assert place.do(work) == (b"written", 7, True, [name])
    assert place.get(f"in/{name}") == b"written"
    assert place.list() == [(f"in/{name}", 7)]


@given(
    st.lists(
        st.lists(st.text("ab.-_ 0汉é😀%+", min_size=1, max_size=3), min_size=1, max_size=3).map("/".join),
        unique=True,
        max_size=12,
    )
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_walk__has_the_order_of_an_object_storage(tmp_path: Path, names: list[str]) -> None:
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        made = []
        for name in names:
            path = Path(folder, name)
            if {".", ".."} & set(name.split("/")):
                continue
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch(exist_ok=False)
            except (FileExistsError, NotADirectoryError, IsADirectoryError):
                continue
            made.append(name)
        with OddS3Server({"data": {f"in/{name}": b"" for name in made}}, page_size=5) as server:
            in_bucket = [name for name, _ in list_odd(server, "s3://data/in")]
        assert [name for name, _ in local_files.walk(folder)] == in_bucket == sorted(made, key=str.encode)


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
