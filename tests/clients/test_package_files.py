"""What of a package's folder may be copied, and how a copy is: package_files.py."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tasks.clients.packages import package_files as module
from tasks.clients.packages.package_files import (
    changed_file,
    copy_to_folder,
    file_seals,
    fingerprint,
    is_sealed,
    name_problem,
    package_files,
    plain_files,
    seal,
)  # fmt: skip
from tasks.domain.errors import SpecificationError


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "package"
    (folder / "data").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "data" / "weights").write_bytes(b"weights")
    return folder


def refusal(package: Path) -> str:
    with pytest.raises(SpecificationError) as refused:
        package_files(package)
    return str(refused.value)


@pytest.mark.parametrize("how", ["absolute", "relative", "folder", "twice", "proc", "through a folder inside"])
def test_link__that_leads_out_is_refused_by_its_name(package: Path, tmp_path: Path, how: str) -> None:
    private = tmp_path / "private"
    private.mkdir()
    (private / "key").write_text("key")
    link = package / "data" / "linked"
    if how == "absolute":
        link.symlink_to(private / "key")
    elif how == "relative":
        link.symlink_to("../../private/key")
    elif how == "folder":
        link.symlink_to(private)
    elif how == "twice":
        (private / "back").symlink_to(private / "key")
        link.symlink_to(private / "back")
    elif how == "proc":
        link.symlink_to("/proc/self/environ")
    else:
        (package / "inner").symlink_to("data")
        link.symlink_to("../inner/../../private/key")
    said = refusal(package)
    assert "data/linked" in said and "outside of the package" in said
    assert os.readlink(link) in said


def test_link__that_leads_nowhere_or_round_is_refused(package: Path) -> None:
    (package / "gone").symlink_to("no-such-file")
    (package / "loop").symlink_to("loop")
    (package / "data" / "up").symlink_to("..")
    said = refusal(package)
    assert "gone" in said and "loop" in said and "a folder that holds it" in said


def test_link__inside_is_kept_whatever_way_it_was_written(package: Path, tmp_path: Path) -> None:
    (package / "weights").symlink_to(package / "data" / "weights")  # absolute
    (package / "data" / "again").symlink_to("../weights")
    (package / "folder").symlink_to("data")
    copy = tmp_path / "copy"
    copy_to_folder(package_files(package), copy)
    assert os.readlink(copy / "weights") == "data/weights"
    assert (copy / "data" / "again").read_bytes() == b"weights" == (copy / "folder" / "weights").read_bytes()
    names = {file.name for file in plain_files(package_files(package))}
    assert names == {
        "config.json", "weights", "data/weights", "data/again", "folder/weights", "folder/again"
    }  # fmt: skip


def test_entry__that_is_no_file_is_refused(package: Path) -> None:
    os.mkfifo(package / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(package / "socket"))
        said = refusal(package)
    assert "pipe" in said and "socket" in said and "device, pipe or socket" in said


def test_file__that_becomes_a_link_meanwhile_is_not_followed(package: Path, tmp_path: Path) -> None:
    (tmp_path / "private").write_text("key")
    found = package_files(package)
    (package / "data" / "weights").unlink()
    (package / "data" / "weights").symlink_to(tmp_path / "private")
    with pytest.raises(OSError, match="symbolic"):
        copy_to_folder(found, tmp_path / "copy")
    assert not any(path.read_bytes() == b"key" for path in (tmp_path / "copy").rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("mode", "kept"), [(0o600, 0o600), (0o400, 0o400), (0o644, 0o644), (0o777, 0o755), (0o6755, 0o755), (0o666, 0o644)]
)
def test_mode__is_never_wider_than_the_source(package: Path, tmp_path: Path, mode: int, kept: int) -> None:
    (package / "data" / "weights").chmod(mode)
    (package / "data").chmod(0o700)
    before = os.umask(0)
    try:
        copy_to_folder(package_files(package), tmp_path / "copy")
    finally:
        os.umask(before)
    assert (tmp_path / "copy" / "data" / "weights").stat().st_mode & 0o7777 == kept
    assert (tmp_path / "copy" / "data").stat().st_mode & 0o7777 == 0o700


def test_package__with_too_many_files_is_refused(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FILES", 2)
    assert "should have at most 2 files" in refusal(package)


def test_package__with_a_sparse_file_of_many_terabytes_is_refused(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 1 << 40)
    with open(package / "data" / "weights", "wb") as file:
        file.truncate((1 << 40) + 1)
    assert "1 TiB" in refusal(package)


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/x", "a\\..\\x", "a\0b", ""])
def test_name__that_leads_outside_is_a_problem(name: str) -> None:
    assert "leads outside" in name_problem(name)


@pytest.mark.parametrize("name", ["x", "a/b", "a..b/c", ".hidden", "..."])
def test_name__below_is_fine(name: str) -> None:
    assert name_problem(name) == ""


def test_seal__is_broken_by_any_change_even_with_its_times_set_back(package: Path) -> None:
    seal(package, ".complete")
    assert is_sealed(package, ".complete")
    weights = package / "data" / "weights"
    times = weights.stat()
    weights.write_bytes(b"WEIGHTS")
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert not is_sealed(package, ".complete")
    seal(package, ".complete")
    (package / "data" / "new.pth").touch()
    assert not is_sealed(package, ".complete")
    seal(package, ".complete")
    (package / "data" / "f.nbi").touch()  # numba's own cache
    assert is_sealed(package, ".complete")
    assert not is_sealed(package, ".other") and fingerprint(package) == fingerprint(package)


def test_changed_file__is_named_and_only_what_may_have_changed_is_read(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (package / "linked").symlink_to("data/weights")
    seals = file_seals(package)
    (package / "new.log").touch()  # a model may write into its own folder
    (package / "config.json").touch()
    read: list[str] = []
    hashed = module._hash
    monkeypatch.setattr(module, "_hash", lambda path: (read.append(path.name), hashed(path))[1])
    assert changed_file(package, seals) is None and read == ["config.json"]
    (package / "data" / "weights").write_bytes(b"WEIGHTS")
    assert changed_file(package, seals) == "data/weights"
    (package / "data" / "weights").unlink()
    assert changed_file(package, seals) == "data/weights"
    (package / "data" / "weights").write_bytes(b"weights")
    (package / "linked").unlink()
    (package / "linked").symlink_to("config.json")
    assert changed_file(package, seals) == "linked"
