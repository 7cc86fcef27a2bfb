"""Files and folders of this machine, through plain system calls: the fastest way (tests/benchmarks)."""

from __future__ import annotations

import asyncio
import errno
import heapq
import itertools
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tasks.clients.storage.failures import IsFolder, Missing, NoSpace, ObjectError, TooLarge, changed
from tasks.clients.storage.local_places import SystemPlace, folder_place, open_to_read
from tasks.clients.storage.temporary_names import open_new

INLINE_BYTES = 128 << 10
"""Up to this size, a read or write is done in the event loop: handing it to a thread costs more."""

PART_NAMES = 20_000
"""How many names of a folder are sorted at once."""
PACK_NAMES = 200
"""How many names of each part are unpacked at once."""


class FileChanged(OSError):
    """A file differs from its listing, or was changed while it was read."""


class FolderGone(FileNotFoundError):
    """The folder below which everything is written no longer exists."""


def explain(error: OSError) -> ObjectError:
    """The system's error in one line, without the path (the caller names the item)."""
    if isinstance(error, FolderGone):
        return ObjectError("The output folder is gone.")
    if isinstance(error, FileChanged):
        return ObjectError(str(error))
    if isinstance(error, SystemPlace):
        return ObjectError(f"{error.strerror}.")
    if isinstance(error, FileNotFoundError):
        return Missing("There is no such file.")
    if isinstance(error, PermissionError):
        return ObjectError("No permission.")
    if isinstance(error, IsADirectoryError):
        return IsFolder(f"{error.strerror}.")
    failed = NoSpace if error.errno in (errno.ENOSPC, errno.EDQUOT) else ObjectError
    return failed(f"{error.strerror or type(error).__name__}.")


@contextmanager
def explained() -> Iterator[None]:
    """Raise the system's errors in the block as ObjectError."""
    try:
        yield
    except OSError as error:
        raise explain(error) from None


def _read(path: str, max_bytes: int | None, size: int, *, many: bool = False) -> bytes:
    descriptor, status = open_to_read(path, many=many)
    try:
        if max_bytes is not None and status.st_size > max_bytes:
            raise TooLarge(status.st_size)
        if 0 <= size != status.st_size:
            raise FileChanged(changed("file", size, status.st_size))
        data = os.read(descriptor, status.st_size + 1)
        if 0 < len(data) < status.st_size:  # more than 2 GiB, or a network file system
            chunks, left = [data], status.st_size + 1 - len(data)
            while left and (chunk := os.read(descriptor, min(left, 1 << 24))):
                chunks.append(chunk)
                left -= len(chunk)
            data = b"".join(chunks)
        now = os.fstat(descriptor)
        if len(data) != status.st_size or (now.st_size, now.st_mtime_ns) != (status.st_size, status.st_mtime_ns):
            raise FileChanged("The file was written while it was being read.")
        return data
    finally:
        os.close(descriptor)


async def read(path: str, max_bytes: int | None = None, size: int = -1) -> bytes:
    """A whole file; ``size`` is its listed size, -1 if unknown. Raises ObjectError, TooLarge.

    A file that has another size now, or is written while it is read, is an error: half of it would look complete.
    """
    try:
        if 0 <= size <= INLINE_BYTES:
            return _read(path, max_bytes, size, many=True)
        return await asyncio.to_thread(_read, path, max_bytes, size)
    except (OSError, ValueError) as error:
        raise explain(error if isinstance(error, OSError) else OSError(22, str(error))) from None


def chunks(path: str, chunk_bytes: int) -> Iterator[bytes]:
    """A file piece by piece. Raises OSError, also if it is written while it is read."""
    descriptor, status = open_to_read(path)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        left = status.st_size
        while chunk := file.read(min(chunk_bytes, left + 1)):
            left -= len(chunk)
            if left < 0:
                break
            yield chunk
        now = os.fstat(file.fileno())
        if left or (now.st_size, now.st_mtime_ns) != (status.st_size, status.st_mtime_ns):
            raise FileChanged("The file was written while it was being read.")


def refuse_system(path: str) -> None:
    """Raises ObjectError if a file or folder is, or would be, in a place of the system."""
    with explained():
        if place := folder_place(path):
            raise SystemPlace(place)


def _write(path: str, data: bytes, temporary_folder: str) -> None:
    descriptor, temporary = open_new(temporary_folder)
    try:
        try:
            view = memoryview(data)
            while len(view):
                view = view[os.write(descriptor, view) :]
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
    except BaseException:
        remove_file(temporary)
        raise


async def write(root: str, path: str, data: bytes, temporary_folder: str, *, made: bool = False) -> None:
    """Write a whole file below ``root``, visible only once it is complete (atomic rename).

    Folders in between are made, ``root`` is not: a missing root is an error. The bytes are first written into
    ``temporary_folder`` (same file system); if that has been ``made`` before and its parent no longer exists, another
    folder has taken the place of ``root``. Raises ObjectError.
    """

    def work() -> None:
        try:
            _write(path, data, temporary_folder)
        except FileNotFoundError:
            if made:
                make_one(temporary_folder)
            make_folder(root, os.path.dirname(path))
            make_folder(root, temporary_folder)
            _write(path, data, temporary_folder)

    try:
        if len(data) <= INLINE_BYTES:
            work()
        else:
            await asyncio.to_thread(work)
    except OSError as error:
        raise explain(error) from None


def make_folder(root: str, folder: str) -> None:
    """Make ``folder`` and its missing parents below ``root``, which must exist. Raises FolderGone."""
    if not os.path.isdir(root):
        raise FolderGone
    os.makedirs(folder, exist_ok=True)


def make_one(folder: str) -> None:
    """Make a folder if it does not exist. Raises FolderGone if its parent does not exist."""
    try:
        with suppress(FileExistsError):
            os.mkdir(folder)
    except FileNotFoundError:
        raise FolderGone from None


def walk(folder: str) -> Iterator[tuple[str, int]]:
    """Path relative to ``folder`` and size (-1: a broken link) of every file below it, in name order.

    The order is that of an object store: by the whole relative path. Links are followed, except a link back to a folder
    that contains it. Anything but files and folders (pipes, devices) is skipped; a link to a system folder is listed
    itself, with size -1. Raises OSError for a folder that cannot be read or is the system's. A million files in one
    folder take some 30 MB for their packed names.
    """
    yield from _walk(folder, "", ())


def _walk(folder: str, prefix: str, above: tuple[tuple[int, int], ...]) -> Iterator[tuple[str, int]]:
    status = os.stat(folder)
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        return
    if place := folder_place(folder, status):
        if not prefix:
            raise SystemPlace(place)
        yield prefix[:-1], -1  # reading it gives the reason
        return
    for raw in _sorted(_names(folder)):
        name = os.fsdecode(raw)
        if raw.endswith(b"/"):
            yield from _walk(f"{folder}/{name[:-1]}", f"{prefix}{name}", (*above, identity))
            continue
        try:
            status = os.stat(f"{folder}/{name}")
        except OSError:  # a broken link, a loop, or no permission: reading it gives the reason
            yield f"{prefix}{name}", -1
            continue
        if stat.S_ISREG(status.st_mode):
            yield f"{prefix}{name}", status.st_size


def _names(folder: str) -> Iterator[bytes]:
    """The names in a folder, unsorted; those of folders end in a slash, so that "a/b" sorts after "a.b"."""
    with os.scandir(os.fsencode(folder)) as entries:
        for entry in entries:
            try:
                yield entry.name + b"/" if entry.is_dir() else entry.name
            except OSError:  # a link to itself, or no permission
                yield entry.name


def _sorted(names: Iterator[bytes]) -> Iterator[bytes]:
    """The same names, sorted. A list of a million would take 80 MB, so sorted parts are packed and merged."""
    parts: list[list[bytes]] = []
    while part := [*itertools.islice(names, PART_NAMES)]:
        part.sort()
        if not parts and len(part) < PART_NAMES:
            yield from part
            return
        parts.append([b"\0".join(part[at : at + PACK_NAMES]) for at in range(0, len(part), PACK_NAMES)])
    yield from heapq.merge(*(_unpacked(packs) for packs in parts))


def _unpacked(packs: list[bytes]) -> Iterator[bytes]:
    packs.reverse()
    while packs:
        yield from packs.pop().split(b"\0")


def sizes(folder: str) -> Iterator[tuple[str, int]]:
    """Path relative to ``folder`` and size of every regular file below it, in no order; links are not followed.

    Raises OSError; a folder that does not exist has no files.
    """
    below = [""]
    while below:
        prefix = below.pop()
        try:
            with os.scandir(f"{folder}/{prefix}") as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        below.append(f"{prefix}{entry.name}/")
                    elif entry.is_file(follow_symlinks=False):
                        yield f"{prefix}{entry.name}", entry.stat(follow_symlinks=False).st_size
        except FileNotFoundError:
            continue


def remove_file(path: str) -> None:
    """Remove a file; it is not an error if it does not exist or cannot be removed."""
    try:
        os.unlink(path)
    except OSError:
        pass


def remove_empty(*folders: str) -> None:
    """Remove those of these folders that are empty."""
    for folder in folders:
        try:
            os.rmdir(folder)
        except OSError:
            continue


def is_creatable(folder: str) -> bool:
    """Whether a folder that does not exist could be made."""
    above = _above(folder)
    if not os.path.isdir(above) or not os.access(above, os.W_OK | os.X_OK):
        return False
    try:  # an in-memory or read-only file system refuses, whatever its permission bits
        os.rmdir(tempfile.mkdtemp(prefix=".thresher-", dir=above))
    except OSError:
        return False
    return True


def room_for(folder: str) -> int:
    """Bytes of free space for a folder that does not exist yet. Raises ObjectError."""
    with explained():
        found = os.statvfs(_above(folder))
    return found.f_bavail * found.f_frsize


def _above(folder: str) -> str:
    """The nearest existing ancestor of a folder that does not exist."""
    above = os.path.dirname(folder)
    while not os.path.lexists(above):
        above = os.path.dirname(above)
    return above
