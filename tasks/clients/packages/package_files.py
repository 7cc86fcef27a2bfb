"""The files of a model package in a folder: which may be copied elsewhere, and whether a copy is unchanged."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from tasks.domain.errors import Problem, SpecificationError

COPY_COMPLETE = ".thresher-complete"
"""A file in each copy of a package in the cache: the seals of the others."""
MAX_FILES = 100_000
MAX_BYTES = 1 << 41
"""Far beyond any package: anything larger is a home folder or a disk."""
_SHOWN = 10
_LEFT_OUT = "__pycache__"
_COMPILED = (".nbi", ".nbc")
"""Caches that numba writes next to a library's byte code whenever the library is used."""
_MODE = 0o755
"""The part of a file's mode that a copy keeps: never write permission for others, nor setuid or setgid."""
_PIECE = 8 << 20


@dataclass(frozen=True, slots=True)
class PackageFile:
    """One file or link of a package, or one of its folders."""

    name: str
    """Path below the package, with slashes."""
    path: Path
    mode: int
    size: int = 0
    kind: str = "file"
    """Or ``folder`` or ``link``."""
    target: str = ""
    """Target of a link, relative to the link's own folder; always inside the package."""


def package_files(package: Path, left_out: Collection[str] = ()) -> list[PackageFile]:
    """All entries of a package to copy, each folder before its content.

    Links inside the package are kept. Raises SpecificationError naming each link that leads outside, nowhere or in a
    circle and each entry that is no file, and if there are too many files or bytes.
    """
    root = Path(os.path.realpath(package))
    found: list[PackageFile] = []
    problems: list[Problem] = []
    total = 0
    for entry in _entries(root) if root.is_dir() else ():
        name = Path(entry.path).relative_to(root).as_posix()
        if name in left_out:
            continue
        state = entry.stat(follow_symlinks=False)
        mode = stat.S_IMODE(state.st_mode) & _MODE
        if entry.is_symlink():
            target, wrong = _inside(root, entry.path)
            if wrong:
                problems.append(Problem("PACKAGE", name, wrong))
            else:
                relative = os.path.relpath(target, os.path.dirname(entry.path))
                found.append(PackageFile(name, Path(target), mode, kind="link", target=relative))
        elif entry.is_dir(follow_symlinks=False):
            found.append(PackageFile(name, Path(entry.path), mode | stat.S_IRWXU, kind="folder"))
        elif stat.S_ISREG(state.st_mode):
            found.append(PackageFile(name, Path(entry.path), mode, state.st_size))
            total += state.st_size
        else:
            expected = "is a device, pipe or socket: a package has files, folders and links inside of it only"
            problems.append(Problem("PACKAGE", name, expected))
        if len(found) > MAX_FILES or total > MAX_BYTES:
            expected = f"should have at most {MAX_FILES} files of {MAX_BYTES >> 40} TiB together"
            raise SpecificationError([Problem("PACKAGE", str(package), expected)])
    if problems:
        raise SpecificationError(problems[:_SHOWN])
    return found


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        there = sorted(entries, key=lambda one: one.name)
    for entry in there:
        if entry.name == _LEFT_OUT:
            continue
        yield entry
        if entry.is_dir(follow_symlinks=False):
            yield from _entries(Path(entry.path))


def _inside(root: Path, link: str) -> tuple[str, str]:
    """The target of a link, and what is wrong with it; one of them is empty."""
    written = os.readlink(link)
    try:
        target = os.path.realpath(link, strict=True)
    except OSError:
        return "", f"is a link to {written}, which is not there"
    if not Path(target).is_relative_to(root):
        return "", f"is a link to {written}, outside of the package: put the file itself there"
    if Path(link).is_relative_to(target):
        return "", f"is a link to {written}, a folder that holds it"
    return target, ""


@contextmanager
def opened(file: PackageFile) -> Iterator[BinaryIO]:
    """A file, opened for reading. Raises OSError, also if it is no longer a regular file."""
    descriptor = os.open(file.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as read:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{file.name} is no file any more")
        yield read


def copy_to_folder(files: list[PackageFile], target: Path) -> None:
    """Copy files below a folder, which is made; modes are kept, except permissions that a copy must not have."""
    target.mkdir(parents=True, exist_ok=True)
    for file in files:
        place = target / file.name
        if file.kind == "folder":
            place.mkdir(mode=0o700)
        elif file.kind == "link":
            place.symlink_to(file.target)
        else:
            made = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(made, "wb") as write, opened(file) as read:
                shutil.copyfileobj(read, write, _PIECE)
                os.fchmod(made, file.mode)
    for file in reversed(files):
        if file.kind == "folder":
            (target / file.name).chmod(file.mode)


def plain_files(files: list[PackageFile]) -> Iterator[PackageFile]:
    """The files without links, for a storage that has none: each link is replaced by its target."""
    for file in files:
        if file.kind != "link":
            if file.kind == "file":
                yield file
        elif file.path.is_dir():
            for below in plain_files(package_files(file.path)):
                yield PackageFile(f"{file.name}/{below.name}", below.path, below.mode, below.size)
        else:
            yield PackageFile(file.name, file.path, file.mode)


def name_problem(name: str) -> str:
    """Why an object's name cannot be a file below a folder; empty if it can."""
    parts = PurePosixPath(name).parts
    if not name or name.startswith("/") or ".." in parts or "\0" in name or "\\" in name:
        return f"the name {name!r} leads outside of the package"
    return ""


def fingerprint(folder: Path, left_out: Collection[str] = ()) -> str:
    """A checksum that shows, without reading them, whether any file below a folder has changed.

    Only the system sets the time of a change (ctime). Raises OSError.
    """
    digest = hashlib.sha256()
    root = str(folder)
    todo = [root]
    while todo:
        with os.scandir(todo.pop()) as entries:
            there = sorted(entries, key=lambda one: one.name)
        for entry in there:
            name = entry.path[len(root) + 1 :]
            if name in left_out or entry.name.endswith(_COMPILED):
                continue
            state = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(state.st_mode):
                todo.append(entry.path)
                digest.update(f"{name}\0{state.st_mode:o}\n".encode("utf-8", "surrogateescape"))
            else:
                metadata = (state.st_mode, state.st_size, state.st_ino, state.st_mtime_ns, state.st_ctime_ns)
                digest.update(f"{name}\0{metadata}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def seal(folder: Path, name: str) -> None:
    """Record the present content of a folder in a file of this name in it. Raises OSError."""
    made = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(made, "w") as write:
        write.write(fingerprint(folder, (name,)))


def is_sealed(folder: Path, name: str) -> bool:
    """Whether a folder was sealed and its content has not changed since."""
    try:
        return (folder / name).read_text() == fingerprint(folder, (name,))
    except (OSError, ValueError):
        return False


def file_seals(folder: Path, left_out: Collection[str] = ()) -> dict[str, str]:
    """The present state of each file of a package, by name: its metadata, and a hash of its bytes."""
    found = {}
    for file in package_files(folder, left_out):
        if file.kind == "file":
            found[file.name] = f"{_metadata(file.path)} {_hash(file.path)}"
        elif file.kind == "link":
            found[file.name] = f"link {file.target}"
    return found


def content_seal(file: PackageFile) -> str:
    """The seal of a file that is kept in a storage without its metadata. Raises OSError."""
    return f"- {_hash(file.path)}"


def changed_file(folder: Path, seals: Mapping[str, str]) -> str | None:
    """The first file that no longer matches its seal; None if all do. Additional files are ignored.

    Only files whose metadata has changed are read.
    """
    for name, seal_of_file in seals.items():
        path = folder / name
        metadata, _, hashed = seal_of_file.rpartition(" ")
        try:
            if metadata == "link":
                same = os.readlink(path) == hashed
            else:
                same = _metadata(path) == metadata or (not path.is_symlink() and _hash(path) == hashed)
        except OSError:
            same = False
        if not same:
            return name
    return None


def _metadata(path: Path) -> str:
    state = os.lstat(path)
    return f"{state.st_size} {state.st_ino} {state.st_mtime_ns} {state.st_ctime_ns}"


def _hash(path: Path) -> str:
    with open(path, "rb") as read:
        return hashlib.file_digest(read, "sha256").hexdigest()
