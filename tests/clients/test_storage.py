"""One door to every storage: the same verbs with the same outcome on a local disk and on a real S3 server."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from clients.places import Place, credentials_of
from clients.support import ROOT, run, variables
from fakes.odd_s3_server import OddS3Server
from fakes.s3_server import S3Server
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.clients.storage import local_files
from tasks.clients.storage.failures import Missing, NoSpace, ObjectError, TooLarge
from tasks.clients.storage.output_folder import OutputFolder
from tasks.clients.storage.storage import Storage
from tasks.domain.credentials import Credentials
from tasks.domain.paths import parse_address
from tasks.domain.settings import Settings

ODD_NAMES = [
    "a b", "a%b", "a%20b", "a%2Fb", "a#b", "a?b", "a+b", "a'b", 'a"b', "a&b=c", "a\\b", "a:b", "a;b,c", "{a}", "~a",
    "汉字.jpg", "😀.png", "é", "e\u0301", " head", "tail ", "n" * 255, "汉" * 85, "-rf", "a..b", "...", "*", "$HOME",
    "`x`",
]  # fmt: skip


def one_line(error: ObjectError, *secrets: str) -> str:
    """The cause, after checking that it is fit for a manifest."""
    assert error.cause
    assert "\n" not in error.cause
    assert len(error.cause) < 300
    assert "?" not in error.cause
    assert re.search(r"https?://[^/\s]+/", error.cause) is None  # the endpoint at most, never an object's address
    for secret in secrets:
        assert secret not in error.cause
    assert error.__cause__ is None
    return error.cause


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


def odd_credentials(server: OddS3Server) -> Credentials:
    return Credentials(endpoint_url=server.endpoint, access_key_id="a", secret_access_key="b", region="us-east-1")


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


# --- credentials and failures of the storage


@pytest.mark.parametrize("scheme", ["s3", "obs"])
def test_credentials__stand_in_the_environment(s3_server: S3Server, bucket: str, scheme: str) -> None:
    s3_server.put(bucket, "key", b"here")
    nothing = dict.fromkeys([*s3_server.environment("AWS"), *s3_server.environment("OBS")])
    with variables(**nothing), variables(**s3_server.environment("OBS" if scheme == "obs" else "AWS")):

        async def work() -> bytes:
            return await Storage(Settings()).read(parse_address(f"{scheme}://{bucket}/key"))

        assert run(work()) == b"here"


def test_credentials__of_obs_fall_back_to_those_of_s3(s3_server: S3Server, bucket: str) -> None:
    s3_server.put(bucket, "key", b"here")
    nothing = dict.fromkeys(s3_server.environment("OBS"))
    with variables(**nothing), variables(**s3_server.environment("AWS")):

        async def work() -> bytes:
            return await Storage(Settings()).read(parse_address(f"obs://{bucket}/key"))

        assert run(work()) == b"here"


def test_credentials__of_both_schemes_are_kept_apart(s3_server: S3Server, bucket: str, tmp_path: Path) -> None:
    with S3Server(tmp_path / "second") as second:
        s3_server.put(bucket, "key", b"in s3")
        second.put(bucket, "key", b"in obs")
        both = {"s3": credentials_of(s3_server), "obs": credentials_of(second)}

        async def work() -> list[bytes]:
            storage = Storage(Settings(), both)
            return [await storage.read(parse_address(f"{scheme}://{bucket}/key")) for scheme in both]

        assert run(work()) == [b"in s3", b"in obs"]


async def failures(storage: Storage, root: str) -> list[ObjectError]:
    """What each verb says."""
    address = parse_address(f"{root}/key")
    output = OutputFolder(storage, parse_address(root), ".scratch")

    async def list_all() -> None:
        async for _ in storage.list(parse_address(root)):
            pass

    async def stream_all() -> None:
        async for _ in storage.stream(address):
            pass

    async def write_all() -> None:
        async with output.stream("large") as writer:
            for _ in range(3):
                await writer.write(bytes(8 << 20))

    errors = []
    for work in (
        storage.read(address), storage.size(address), storage.is_file(address), list_all(), stream_all(),
        storage.top(parse_address(root)), output.write("key", b"x"), write_all(), output.delete_files(["key"]),
        storage.delete(parse_address(root)),
    ):  # fmt: skip
        with pytest.raises(ObjectError) as raised:
            await work
        errors.append(raised.value)
    return errors


def test_denied__is_told_in_one_line_without_secrets(s3_server: S3Server, bucket: str) -> None:
    wrong = credentials_of(s3_server).model_copy(update={"secret_access_key": "wrong-secret"})
    credentials = Credentials.model_validate(wrong.model_dump() | {"secret_access_key": "wrong-secret"})

    async def work() -> list[ObjectError]:
        return await failures(Storage(Settings(), {"s3": credentials}), f"s3://{bucket}/in")

    for error in run(work()):
        said = one_line(error, "wrong-secret", s3_server.access_key, s3_server.secret_key)
        assert said.startswith("No permission (HTTP 403")
        assert not isinstance(error, Missing)


def test_missing_bucket__is_told_in_one_line(s3_server: S3Server) -> None:
    async def work() -> list[ObjectError]:
        storage = Storage(Settings(), {"s3": credentials_of(s3_server)})
        errors = []
        for verb in (storage.read, storage.size):
            with pytest.raises(ObjectError) as raised:
                await verb(parse_address("s3://no-such-bucket/key"))
            errors.append(raised.value)
        with pytest.raises(ObjectError) as raised:
            async for _ in storage.list(parse_address("s3://no-such-bucket/in")):
                pass
        return [*errors, raised.value]

    for error in run(work()):
        one_line(error, s3_server.access_key)
        assert isinstance(error, Missing)


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.slow
def test_refused__is_told_in_one_line() -> None:
    endpoint = f"http://127.0.0.1:{closed_port()}"
    credentials = Credentials(endpoint_url=endpoint, access_key_id="the-access-key", secret_access_key="the-secret")

    async def work() -> ObjectError:
        with pytest.raises(ObjectError) as raised:
            await Storage(Settings(storage_retry_seconds=2), {"s3": credentials}).read(parse_address("s3://bucket/key"))
        return raised.value

    said = one_line(run(work()), "the-access-key", "the-secret")
    assert said == f"The storage {endpoint} cannot be reached: connection refused."


@pytest.mark.slow
def test_silent_storage__is_given_up_after_the_time_set(bucket: str) -> None:
    with OddS3Server({bucket: {"key": b"x"}}) as server:
        server.delay_seconds = 2

        async def work() -> ObjectError:
            storage = Storage(
                Settings(download_timeout_seconds=0.3, storage_retry_seconds=1), {"s3": odd_credentials(server)}
            )
            with pytest.raises(ObjectError) as raised:
                await storage.read(parse_address(f"s3://{bucket}/key"))
            return raised.value

        one_line(run(work()))


@pytest.mark.parametrize("status", [500, 503, 0])
def test_faltering_storage__is_asked_again(bucket: str, status: int) -> None:
    with OddS3Server({bucket: {"key": b"here"}}) as server:
        server.fail_next(status, times=2)

        async def work() -> bytes:
            return await Storage(Settings(), {"s3": odd_credentials(server)}).read(parse_address(f"s3://{bucket}/key"))

        assert run(work()) == b"here"
        assert len(server.lines) == 3


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


# --- local disks and their trouble


def local(folder: Path) -> OutputFolder:
    return OutputFolder(Storage(Settings()), parse_address(str(folder)), ".scratch")


def test_output_folder__that_disappeared_is_an_error_and_is_not_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()

    async def work() -> list[ObjectError]:
        output = local(folder)
        await output.write("results/1", b"x")
        shutil.rmtree(folder)
        errors = []
        with pytest.raises(ObjectError) as raised:
            await output.write("results/2", b"x")
        errors.append(raised.value)
        with pytest.raises(ObjectError) as raised:
            async with output.stream("manifest") as writer:
                await writer.write(b"x")
        return [*errors, raised.value]

    for error in run(work()):
        assert one_line(error) == "The output folder is gone."
    assert not folder.exists()


def test_output_folder__makes_its_scratch_folder_again(tmp_path: Path) -> None:
    async def work() -> None:
        output = local(tmp_path)
        await output.write("1", b"x")
        await output.remove_scratch()
        await output.write("2", b"y")
        await output.remove_scratch()

    run(work())
    assert sorted(os.listdir(tmp_path)) == ["1", "2"]


async def write_many(output: OutputFolder, size: int) -> None:
    for number in range(20):
        await output.write(f"results/{number}-{size}", bytes(size))


def test_full_disk__is_told_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("no right to mount")
    try:

        async def work() -> list[ObjectError]:
            output = local(disk)
            await output.write("small", b"x")
            errors = []
            for size in (100 << 10, 2 << 20):  # written at once, and by a thread
                with pytest.raises(ObjectError) as raised:
                    await write_many(output, size)
                errors.append(raised.value)
            with pytest.raises(ObjectError) as raised:
                async with output.stream("manifest") as writer:
                    await writer.write(bytes(2 << 20))
            return [*errors, raised.value]

        for error in run(work()):
            assert one_line(error) == "No space left on device."
        assert not (disk / "manifest").exists()
        assert {path.stat().st_size for path in (disk / "results").iterdir()} == {100 << 10}
        assert [*(disk / ".scratch" / "tmp").iterdir()] == []
    finally:
        subprocess.run(["umount", disk], check=True)


def test_check_writable__finds_a_full_disk_and_leaves_nothing_behind(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("no right to mount")
    try:
        (disk / "out").mkdir()
        with (disk / "filled").open("wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(4096)):
                pass
        for folder in ("out", "new/folder"):
            with pytest.raises(ObjectError) as raised:
                run(local(disk / folder).check_writable())
            assert one_line(raised.value) == "No space left on device." and isinstance(raised.value, NoSpace)
        assert sorted(os.listdir(disk)) == ["filled", "out"] and os.listdir(disk / "out") == []
    finally:
        subprocess.run(["umount", disk], check=True)


LIMITED = """
import asyncio, os, resource, sys
from tasks.clients.storage.failures import ObjectError
from tasks.clients.storage.output_folder import OutputFolder
from tasks.clients.storage.storage import Storage
from tasks.domain.paths import parse_address
from tasks.domain.settings import Settings

async def main():
    output = OutputFolder(Storage(Settings()), parse_address(sys.argv[1]), ".scratch")
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    for work in (output.write("a", bytes(2000)), output.write("b", bytes(200_000))):
        try:
            await work
        except ObjectError as error:
            print(error.cause)
    try:
        async with output.stream("c") as writer:
            await writer.write(bytes(2000))
    except ObjectError as error:
        print(error.cause)

asyncio.run(main())
"""


def in_python(code: str, *arguments: str) -> list[str]:
    """What a process of its own prints, line by line."""
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_file_size_limit__is_told_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    assert in_python(LIMITED, str(tmp_path)) == ["File too large."] * 3
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


UNPRIVILEGED = """
import asyncio, os, sys
import concurrent.futures.thread, encodings.idna  # what is imported late cannot be read then
from tasks.clients.storage.failures import ObjectError
from tasks.clients.storage.output_folder import OutputFolder
from tasks.clients.storage.storage import Storage
from tasks.domain.paths import parse_address
from tasks.domain.settings import Settings

async def main():
    storage = Storage(Settings())
    folder = parse_address(sys.argv[1])
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)

    async def list_all(folder):
        return [(name, size) async for name, size, _ in storage.list(folder)]

    for name, work in {
        "list-in": list_all(folder),
        "list": list_all(folder.child("closed")),
        "top": storage.top(folder.child("closed")),
        "read": storage.read(folder.child("closed-file")),
        "read-below": storage.read(folder.child("closed/file")),
        "links": list_all(folder.child("links")),
        "write": OutputFolder(storage, folder.child("readable"), ".scratch").write("x", b""),
        "check": OutputFolder(storage, folder.child("readable"), ".scratch").check_writable(),
        "check-new": OutputFolder(storage, folder.child("readable/new"), ".scratch").check_writable(),
    }.items():
        try:
            print(name, await work)
        except ObjectError as error:
            print(name, error.cause)

asyncio.run(main())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs the right to become somebody else")
def test_no_permission__is_told_for_folders_and_files() -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        folder = Path(name)
        for below in ("closed", "readable", "links"):
            (folder / below).mkdir()
        (folder / "closed" / "file").write_bytes(b"x")
        (folder / "closed-file").write_bytes(b"x")
        (folder / "links" / "1").write_bytes(b"x")
        (folder / "links" / "2").symlink_to(folder / "closed" / "file")
        for path, mode in (
            ("", 0o755),
            ("closed", 0o700),
            ("closed-file", 0o600),
            ("readable", 0o755),
            ("links", 0o755),
        ):
            (folder / path).chmod(mode)
        said = dict(line.split(" ", 1) for line in in_python(UNPRIVILEGED, name))
    assert said.pop("check-new").startswith("It does not exist and cannot be created")
    # A link to what may not be read is an item that fails, not the end of the listing.
    assert said.pop("links") == "[('1', 1), ('2', -1)]"
    assert set(said.values()) == {"No permission."}


def test_odd_entries__of_a_folder_do_not_end_the_listing(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    (folder / "1").write_bytes(b"x")
    (folder / "sub" / "2").write_bytes(b"xy")
    (folder / "sub" / "up").symlink_to(folder)
    (folder / "itself").symlink_to(folder / "itself")
    (folder / "ping").symlink_to(folder / "pong")
    (folder / "pong").symlink_to(folder / "ping")
    (folder / "broken").symlink_to(tmp_path / "nothing")
    (folder / "good").symlink_to(folder / "1")
    (folder / "other").symlink_to(folder / "sub")
    os.mkfifo(folder / "fifo")
    (folder / "device").symlink_to("/dev/null")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(folder / "socket"))
    assert [*local_files.walk(str(folder))] == [
        ("1", 1), ("broken", -1), ("good", 1), ("itself", -1), ("other/2", 2), ("ping", -1), ("pong", -1), ("sub/2", 2),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("fifo", "It is not a regular file."),
        ("folder", "It is a folder, not a file."),
        ("itself", "Too many levels of symbolic links."),
        ("broken", "There is no such file."),
        ("/dev/null", "It leads to /dev, which belongs to the system and is neither read nor written."),
        ("file/below", "Not a directory."),
        ("n" * 300, "File name too long."),
    ],
)
def test_read__of_what_is_no_file_says_so_at_once(tmp_path: Path, name: str, cause: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "itself").symlink_to(tmp_path / "itself")
    (tmp_path / "broken").symlink_to(tmp_path / "nothing")

    async def work() -> str:
        with pytest.raises(ObjectError) as raised:
            await Storage(Settings()).read(parse_address(str(tmp_path / name)))
        return one_line(raised.value)

    assert run(work()) == cause


def test_walk__goes_down_deep_folders(tmp_path: Path) -> None:
    depth = 400
    os.makedirs(tmp_path / "/".join(["d"] * depth))
    (tmp_path / "/".join(["d"] * depth) / "file").touch()
    assert [name for name, _ in local_files.walk(str(tmp_path))] == ["/".join(["d"] * depth) + "/file"]


def test_uploads__that_a_killed_try_left_are_given_up_those_of_others_are_not() -> None:
    """And a storage that knows no such call keeps them, without an error."""
    names = {"access_key_id": "a", "secret_access_key": "b", "region": "us-east-1"}
    with OddS3Server({"data": {}}) as server:
        for number, key in enumerate(["out/run-1/big", "out/.run-1/plan", "out/run-2/big", "other"]):
            server.uploads[f"upload-{number}"] = {1: b"x"}
            server.keys_of_uploads[f"upload-{number}"] = key

        async def work() -> None:
            storage = Storage(
                Settings(), {"s3": Credentials.model_validate({"endpoint_url": server.endpoint, **names})}
            )
            try:
                await OutputFolder(storage, parse_address("s3://data/out"), ".run-1").give_up_uploads(
                    ["run-1", ".run-1"]
                )
            finally:
                await storage.close()

        server.fail_next(501, times=2)
        run(work())
        assert len(server.uploads) == 4
        run(work())
        assert sorted(server.uploads) == ["upload-2", "upload-3"]
