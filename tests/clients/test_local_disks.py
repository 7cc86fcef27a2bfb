"""Local disks and their trouble: full, gone, forbidden, odd."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from clients.places import local, one_line
from clients.support import ROOT, run
from fakes.odd_s3_server import OddS3Server

from tasks.clients.storage import local_files
from tasks.clients.storage.failures import NoSpace, ObjectError
from tasks.clients.storage.output_folder import OutputFolder
from tasks.clients.storage.storage import Storage
from tasks.domain.credentials import Credentials
from tasks.domain.paths import parse_address
from tasks.domain.settings import Settings

# --- local disks and their trouble


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
