"""One door to every storage: the same verbs with the same outcome on a local disk and on a real S3 server."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from clients.places import Place, credentials_of, odd_credentials, one_line
from clients.support import run
from fakes.odd_s3_server import OddS3Server
from fakes.s3_server import S3Server

from tasks.clients.storage.failures import Missing, ObjectError, TooLarge
from tasks.clients.storage.output_folder import OutputFolder
from tasks.clients.storage.storage import Storage
from tasks.domain.paths import parse_address
from tasks.domain.settings import Settings

# --- reading


def test_read__gives_every_byte(place: Place) -> None:
    contents = {"empty": b"", "bytes": bytes(range(256)), "inline": b"x" * (128 << 10), "large": os.urandom(3 << 20)}
    for name, data in contents.items():
        place.put(name, data)

    async def work(storage: Storage) -> dict[str, bytes]:
        return {name: await storage.read(place.root.child(name)) for name in contents}

    assert place.do(work) == contents


def test_read__above_the_limit_is_refused(place: Place) -> None:
    place.put("item", b"x" * 100)

    async def work(storage: Storage) -> int:
        assert await storage.read(place.root.child("item"), 100) == b"x" * 100
        with pytest.raises(TooLarge) as raised:
            await storage.read(place.root.child("item"), 99)
        return raised.value.size

    assert place.do(work) == 100


def test_read__above_the_limit_does_not_download(bucket: str) -> None:
    with OddS3Server({bucket: {"big": bytes(64 << 20)}}) as server:

        async def work() -> None:
            storage = Storage(Settings(), {"s3": odd_credentials(server)})
            with pytest.raises(TooLarge):
                await storage.read(parse_address(f"s3://{bucket}/big"), 1000)
            await storage.close()

        run(work())
        # What fits into the buffers of a connection, not the object.
        assert server.sent[f"/{bucket}/big"] < 32 << 20
        assert {line.rpartition(" ")[2] for line in server.lines} == {f"/{bucket}/big"}


def test_stream__gives_every_byte_in_pieces(place: Place) -> None:
    data = os.urandom((5 << 20) + 17)
    place.put("large", data)

    async def work(storage: Storage) -> list[bytes]:
        return [chunk async for chunk in storage.stream(place.root.child("large"))]

    chunks = place.do(work)
    assert b"".join(chunks) == data
    assert len(chunks) > 1
    assert max(map(len, chunks)) < 4 << 20


def test_missing__is_told(place: Place) -> None:
    place.put("there/file", b"x")

    async def work(storage: Storage) -> list[ObjectError]:
        errors = []
        for verb in (storage.read, storage.size):
            with pytest.raises(ObjectError) as raised:
                await verb(place.root.child("nothing"))
            errors.append(raised.value)
        with pytest.raises(ObjectError) as raised:
            async for _ in storage.stream(place.root.child("nothing")):
                pass
        assert not await storage.is_file(place.root.child("nothing"))
        assert not await storage.is_file(place.root.child("there"))
        return [*errors, raised.value]

    for error in place.do(work):
        assert isinstance(error, Missing)
        assert one_line(error).startswith("There is no such ")


# --- writing


def test_write__replaces_a_file_as_a_whole(place: Place) -> None:
    async def work(storage: Storage) -> bytes:
        output = place.output(storage)
        await output.write("a/b/1.txt", b"first and longer")
        await output.write("a/b/1.txt", b"second")
        return await output.read("a/b/1.txt")

    assert place.do(work) == place.get("a/b/1.txt") == b"second"
    assert place.names() == ["a/b/1.txt"]


@pytest.mark.parametrize("size", [0, 1, 128 << 10, (128 << 10) + 1, 33 << 20])
def test_write__of_every_size_is_whole(place: Place, size: int) -> None:
    data = os.urandom(size)

    async def work(storage: Storage) -> None:
        await place.output(storage).write("result", data)

    place.do(work)
    assert place.get("result") == data


def test_stream__is_visible_only_once_it_is_complete(place: Place) -> None:
    parts = [os.urandom(5 << 20) for _ in range(5)]

    async def work(storage: Storage) -> None:
        output = place.output(storage)
        async with output.stream("sub/manifest") as writer:
            for part in parts:
                await writer.write(part)
                assert "sub/manifest" not in place.names()

    place.do(work)
    assert place.get("sub/manifest") == b"".join(parts)


async def half_a_stream(output: OutputFolder, size: int) -> None:
    async with output.stream("manifest") as writer:
        await writer.write(bytes(size))
        raise RuntimeError("in the middle")


@pytest.mark.parametrize("size", [10, 20 << 20])
def test_stream__that_fails_leaves_no_file(place: Place, size: int) -> None:
    async def work(storage: Storage) -> None:
        output = place.output(storage)
        with pytest.raises(RuntimeError, match="in the middle"):
            await half_a_stream(output, size)

    place.do(work)
    assert place.names() == []


def test_stream__that_fails_leaves_no_upload_behind() -> None:
    with OddS3Server({"out": {}}) as server:

        async def work() -> None:
            storage = Storage(Settings(), {"s3": odd_credentials(server)})
            output = OutputFolder(storage, parse_address("s3://out/run"), ".scratch")
            with pytest.raises(RuntimeError, match="in the middle"):
                await half_a_stream(output, 20 << 20)

        run(work())
        assert server.buckets["out"] == {}
        assert server.uploads == {}


def test_delete__removes_what_is_below_a_folder_and_nothing_else(place: Place) -> None:
    for name in (".scratch/plan/1", ".scratch/2", ".scratch2/3", "results/4"):
        place.put(name, b"x")

    async def work(storage: Storage) -> None:
        await place.output(storage).remove_scratch()
        await place.output(storage).remove_scratch()

    place.do(work)
    assert place.names() == [".scratch2/3", "results/4"]


def test_delete_files__takes_those_that_do_not_exist(place: Place) -> None:
    for name in ("a", "b", "c"):
        place.put(name, b"x")

    async def work(storage: Storage) -> None:
        await place.output(storage).delete_files(["a", "nothing", "c"])
        await place.output(storage).delete_files([])

    place.do(work)
    assert place.names() == ["b"]


def test_top__has_files_and_folders_directly_below(place: Place) -> None:
    for name in ("a", "b/1", "b/c/2", "汉/3", "b.x"):
        place.put(name, b"x")

    async def work(storage: Storage) -> list[list[str]]:
        names = [place.root, place.root.child("b"), place.root.child("nothing")]
        return [[*await storage.top(folder)] for folder in names]

    assert place.do(work) == [["a", "b", "b.x", "汉"], ["1", "c"], []]


def test_output_folder__lists_what_the_run_wrote(place: Place) -> None:
    async def work(storage: Storage) -> list[list[str]]:
        output = place.output(storage)
        await output.write("partial/2", b"")
        await output.write("partial/1", b"x")
        return [[*await output.list("partial")], [*await output.list("nothing")]]

    assert place.do(work) == [["1", "2"], []]


def test_check_writable__leaves_nothing_behind(place: Place) -> None:
    async def work(storage: Storage) -> None:
        await place.output(storage).check_writable()

    place.do(work)
    assert place.names() == []
    if place.kind == "local":
        assert os.listdir(place.root.path) == []


def test_check_writable__refuses_keys_that_could_not_be_read_back(s3_server: S3Server, bucket: str) -> None:
    async def work() -> None:
        storage = Storage(Settings(), {"s3": credentials_of(s3_server)})
        await OutputFolder(storage, parse_address(f"s3://{bucket}/a//b"), ".scratch").check_writable()

    with pytest.raises(ObjectError, match="should have no empty"):
        run(work())


def test_check_writable__takes_a_folder_that_can_be_made(tmp_path: Path) -> None:
    async def work(folder: Path) -> None:
        await OutputFolder(Storage(Settings()), parse_address(str(folder)), ".scratch").check_writable()

    run(work(tmp_path / "a" / "b"))
    assert not (tmp_path / "a").exists()
    (tmp_path / "file").touch()
    with pytest.raises(ObjectError, match="cannot be created"):
        run(work(tmp_path / "file" / "b"))
