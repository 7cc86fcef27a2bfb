"""What belongs to the system is never read, by whatever way a path leads there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from clients.places import Place
from clients.support import run

from tasks.clients.storage import local_places
from tasks.clients.storage.failures import ObjectError
from tasks.clients.storage.output_folder import OutputFolder
from tasks.clients.storage.storage import Storage
from tasks.domain.paths import parse_address
from tasks.domain.settings import Settings
from tasks.engine.planning import Planner, first_file

SYSTEM = "belongs to the system"


def refusal(path: Path | str, verb: str = "read") -> str:
    """Why a path is not read."""

    async def work() -> None:
        storage = Storage(Settings())
        if verb == "read":
            await storage.read(parse_address(str(path)))
        elif verb == "read a listed size":
            await storage.read(parse_address(str(path)), None, 0)
        else:
            async for _ in storage.stream(parse_address(str(path))):
                pass

    with pytest.raises(ObjectError) as raised:
        run(work())
    return raised.value.cause


@pytest.mark.parametrize("verb", ["read", "read a listed size", "stream"])
@pytest.mark.parametrize(
    "path", ["/proc/self/environ", "/proc/1/environ", "/proc/self/root/etc/hostname", "/dev/zero", "/dev/null",
             "/dev/stdin", "/sys/kernel/uevent_seqnum", "/run/secrets/x", "/../proc/self/environ", "//proc/version"],
)  # fmt: skip
def test_system_file__is_not_read_by_its_name(path: str, verb: str) -> None:
    assert SYSTEM in refusal(path, verb)


@pytest.mark.parametrize(
    "target",
    ["/proc/self/environ", "../../../../../../../../../../proc/version", "/proc/self/../version",
     "/sys/devices/system/cpu/online"],
)  # fmt: skip
def test_system_file__is_not_read_by_links(tmp_path: Path, target: str) -> None:
    (tmp_path / "link").symlink_to(target)
    (tmp_path / "to the link").symlink_to("link")
    (tmp_path / "folder").symlink_to(tmp_path)
    for name in ("link", "to the link", "folder/link"):
        assert SYSTEM in refusal(tmp_path / name), name


def test_system_file__is_not_read_by_a_linked_folder_above_it(tmp_path: Path) -> None:
    (tmp_path / "folder").symlink_to("/proc/self")
    assert SYSTEM in refusal(tmp_path / "folder" / "environ")


def test_open_file_without_a_name__is_not_read_by_a_link_into_proc(tmp_path: Path) -> None:
    held = os.memfd_create("secret")
    try:
        os.write(held, b"secret")
        (tmp_path / "link").symlink_to(f"/proc/{os.getpid()}/fd/{held}")
        assert SYSTEM in refusal(tmp_path / "link")
    finally:
        os.close(held)


def test_link_through_proc__is_not_followed_even_to_an_ordinary_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"data")
    (tmp_path / "link").symlink_to(f"/proc/self/root{tmp_path}/file")
    assert SYSTEM in refusal(tmp_path / "link")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
def test_bind_mount__of_a_system_file_is_not_read(tmp_path: Path) -> None:
    """In a mount namespace of its own, so that nothing is left."""
    (tmp_path / "innocent.bin").touch()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = os.system(f"mount --bind /proc/version '{tmp_path}/innocent.bin'") if _unshared() else 1
        os.write(write, (refusal(tmp_path / "innocent.bin") if status == 0 else "cannot mount").encode())
        os._exit(0)
    os.close(write)
    os.waitpid(pid, 0)
    with os.fdopen(read) as told:
        said = told.read()
    if said == "cannot mount":
        pytest.skip("no mount namespaces here")
    assert SYSTEM in said


def _unshared() -> bool:
    import ctypes

    return ctypes.CDLL(None).unshare(0x00020000) == 0 and os.system("mount --make-rprivate /") == 0


def test_file_that_was_replaced_while_it_was_opened__is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"data")
    (tmp_path / "link").symlink_to("file")
    really = os.open

    def opened(path: str, *arguments: int, **options: int) -> int:
        descriptor = really(path, *arguments, **options)
        if path == str(tmp_path / "link"):
            os.rename(tmp_path / "file", tmp_path / "other")
            os.unlink(tmp_path / "other")
        return descriptor

    monkeypatch.setattr(os, "open", opened)
    with pytest.raises(local_places.FileMoved):
        local_places.open_to_read(str(tmp_path / "link"))


def test_folder__that_was_looked_up_before_leads_nowhere_else_when_it_is_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / name).write_bytes(b"data")

    def read(name: str) -> bytes:
        return run(Storage(Settings()).read(parse_address(str(folder / name)), None, (folder / name).stat().st_size))

    assert read("a") == read("b") == b"data"
    folder.rename(tmp_path / "before")
    folder.symlink_to("/proc/self")
    assert SYSTEM in refusal(folder / "environ")
    folder.unlink()
    folder.mkdir()
    (folder / "environ").write_bytes(b"a user's")
    assert read("environ") == b"a user's"
    (folder / "b").symlink_to("/proc/self/environ")
    assert SYSTEM in refusal(folder / "b")


def test_folder__of_files_is_not_kept_open_once_the_storage_is_closed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"data")

    def opened() -> int:
        return sum(os.path.realpath(f"/proc/self/fd/{one}") == str(tmp_path) for one in os.listdir("/proc/self/fd"))

    async def work() -> list[int]:
        storage = Storage(Settings())
        seen = [opened()]
        for _ in range(3):
            await storage.read(parse_address(str(tmp_path / "file")), None, 4)
            seen.append(opened())
        await storage.close()
        return [*seen, opened()]

    assert run(work()) == [0, 0, 1, 1, 0]  # one file is not worth it


def test_links__to_ordinary_files_and_folders_are_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").write_bytes(b"data")
    (tmp_path / "folder").symlink_to("real")
    (tmp_path / "folder" / "link").symlink_to(tmp_path / "folder" / "file")

    async def work() -> bytes:
        return await Storage(Settings()).read(parse_address(str(tmp_path / "folder" / "link")), None, 4)

    assert run(work()) == b"data"


def test_key_file_of_the_flow__is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "keys").write_text("aws_secret_access_key = SECRET")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "keys"))
    (tmp_path / "link").symlink_to("keys")
    local_places._key_files.cache_clear()
    local_places._key_numbers.cache_clear()
    os.link(tmp_path / "keys", tmp_path / "hard-link")
    try:
        assert SYSTEM in refusal(tmp_path / "keys")
        assert SYSTEM in refusal(tmp_path / "link")
        assert SYSTEM in refusal(tmp_path / "hard-link")
    finally:
        local_places._key_files.cache_clear()
        local_places._key_numbers.cache_clear()


def test_listing__passes_a_link_to_a_folder_of_the_system_as_one_file(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"data")
    (tmp_path / "deep").mkdir()
    for name, target in (("all", "/proc"), ("devices", "/dev"), ("deep/self", "/proc/self/task"), ("sys", "/sys")):
        (tmp_path / name).symlink_to(target)

    async def work() -> list[tuple[str, int]]:
        return [(name, size) async for name, size, _ in Storage(Settings()).list(parse_address(str(tmp_path)))]

    assert run(work()) == [("a.bin", 4), ("all", -1), ("deep/self", -1), ("devices", -1), ("sys", -1)]


def test_planning__fails_the_lines_that_name_the_system(tmp_path: Path) -> None:
    (tmp_path / "f.bin").write_bytes(b"data")
    lines = ["/proc/self/environ", "file:///sys/x", "../../../../../../../../../../dev/mem", f"{tmp_path}/f.bin"]
    (tmp_path / "x.manifest").write_text("".join(f'{{"source": "{line}"}}\n' for line in lines))

    async def work() -> list[str]:
        planner = Planner(Storage(Settings()), parse_address(str(tmp_path / "x.manifest")))
        return [item.error async for item in planner.items()]

    *refused, fine = run(work())
    assert all(error.startswith("Download file failed. It leads to /") and SYSTEM in error for error in refused)
    assert fine == ""


@pytest.mark.parametrize("path", ["/proc", "/proc/self/environ", "/sys/x.manifest", "/dev", "{link}", "{link}/self"])
def test_paths_of_a_service__are_refused_in_the_system(tmp_path: Path, path: str) -> None:
    (tmp_path / "link").symlink_to("/proc")
    address = parse_address(path.format(link=tmp_path / "link"))

    async def read() -> None:
        await first_file(Storage(Settings()), address)

    async def write() -> None:
        await OutputFolder(Storage(Settings()), address, ".scratch").check_writable()

    async def make() -> None:
        await OutputFolder(Storage(Settings()), address, ".scratch").make()

    for work in (read, write, make):
        with pytest.raises(ObjectError, match=SYSTEM):
            run(work())


def test_output__is_written_where_links_lead(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    place = Place("local", parse_address(str(tmp_path / "link")), {}, None)

    async def work(storage: Storage) -> None:
        output = place.output(storage)
        await output.check_writable()
        await output.make()
        await output.write("a/b", b"data")

    place.do(work)
    assert place.names() == ["a/b"]
