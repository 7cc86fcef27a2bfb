"""Opening local files for reading, except the system's: see :mod:`tasks.domain.system_places`.

The opened file's real place counts, not its name: links, links in parent folders, bind mounts, and links changed while
it is being opened make no difference.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from contextlib import suppress
from functools import cache

from tasks.domain.system_places import kernel_devices, key_files, refusal, system_place

MOUNTS = "/proc/self/mountinfo"
FOLDER_SECONDS = 1.0
"""How long files are opened in a folder after it was looked up, even if its name then leads elsewhere."""
# Non-blocking: a pipe in place of a file must not block everything.
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
_LINKS = 40
"""How many links the kernel itself follows in one path."""

_devices: dict[int, bool] = {}
"""Whether a device is a file system of the kernel, by device number."""


class SystemPlace(PermissionError):
    """A path leads to a place of the system."""

    def __init__(self, place: str) -> None:
        super().__init__(1, refusal(place))


class FileMoved(OSError):
    """A file or a link was changed while it was being opened."""


def _is_kernels(device: int) -> bool:
    if (known := _devices.get(device)) is None:
        try:
            with open(MOUNTS, encoding="utf-8", errors="surrogateescape") as file:
                devices = kernel_devices(file.read())
        except OSError:
            devices = set()
        known = _devices[device] = (os.major(device), os.minor(device)) in devices
    return known


@cache
def _key_files() -> frozenset[str]:
    return frozenset(map(os.path.realpath, key_files(os.environ, os.path.expanduser("~"))))


class _Folder:
    """A folder whose files are opened by name alone: its real place is looked up once for all of them."""

    __slots__ = ("descriptor", "path", "real", "until")

    def __init__(self, path: str, until: float) -> None:
        self.path = path
        self.until = until
        self.real = ""
        self.descriptor = -1
        try:
            self.descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            _check(self.descriptor, os.fstat(self.descriptor), path)
            self.real = os.readlink(f"/proc/self/fd/{self.descriptor}").rstrip("/")
        except OSError:
            self.close()  # opening the file itself gives the reason

    def close(self) -> None:
        """Close it; no more files can be opened in it."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()


class _Latest(threading.local):
    """The folder in which this thread last opened a file."""

    folder: _Folder | None = None
    path = ""
    """Path of the folder in which a file was last opened, even if that folder was not kept open."""


_latest = _Latest()


def _open_in_folder(path: str) -> tuple[int, os.stat_result] | None:
    """A regular file (no link) and its status, if neither is in a place of the system; None in all unclear cases.

    Takes half the time of looking up the real place of each file.
    """
    above, _, name = path.rpartition("/")
    folder, now = _latest.folder, time.monotonic()
    if folder is None or folder.path != above or folder.until < now:
        forget_folder()
        if _latest.path != above:  # not worth it for a single file of a folder
            _latest.path = above
            return None
        folder = _latest.folder = _Folder(above, now + FOLDER_SECONDS)
    if folder.descriptor < 0:
        return None
    try:
        descriptor = os.open(name, _FLAGS | os.O_NOFOLLOW, dir_fd=folder.descriptor)
    except OSError:
        return None
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and not _is_kernels(status.st_dev):
        real = f"{folder.real}/{name}"
        is_key = real in _key_files() or (status.st_dev, status.st_ino) in _key_numbers()
        if not is_key and not system_place(real):
            return descriptor, status
    os.close(descriptor)
    return None


def forget_folder() -> None:
    """Close the folder that this thread has kept open: otherwise its disk could not be unmounted."""
    if _latest.folder is not None:
        _latest.folder.close()
        _latest.folder = None


@cache
def _key_numbers() -> frozenset[tuple[int, int]]:
    """Device and inode of each key file, which are the same under every name."""
    found = set()
    for path in _key_files():
        with suppress(OSError):
            status = os.stat(path)
            found.add((status.st_dev, status.st_ino))
    return frozenset(found)


def open_to_read(path: str, *, many: bool = False) -> tuple[int, os.stat_result]:
    """A regular file, opened, and its status. Raises OSError, and SystemPlace if it belongs to the system.

    With ``many``, the folder is kept open for further files until :func:`forget_folder`.
    """
    if many and (found := _open_in_folder(path)) is not None:
        return found
    if place := system_place(path):
        raise SystemPlace(place)
    descriptor = os.open(path, _FLAGS)
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(21, "It is a folder, not a file")
        if not stat.S_ISREG(status.st_mode):
            raise OSError(22, "It is not a regular file")
        _check(descriptor, status, path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, status


def _check(descriptor: int, status: os.stat_result, path: str) -> None:
    if _is_kernels(status.st_dev):
        raise SystemPlace(system_place(os.path.realpath(path)) or "a file system of the kernel")
    try:
        real = os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:  # no /proc here, so no link into it
        real = os.path.realpath(path)
    if place := system_place(real):
        raise SystemPlace(place)
    if real in _key_files() or (status.st_dev, status.st_ino) in _key_numbers():
        raise SystemPlace("a file with keys")
    if real == path:
        return
    # Links in /proc also lead to unnamed and deleted files, of this process and of others.
    if place := _passes_through(path):
        raise SystemPlace(place)
    try:
        named = os.stat(real)
    except OSError:
        named = None
    if named is None or (named.st_dev, named.st_ino) != (status.st_dev, status.st_ino):
        raise FileMoved(11, "It was changed while it was being opened")


def _passes_through(path: str) -> str:
    """The system's place that the links of a path lead through; empty if there is no such place."""
    at, links = "", 0
    parts = [part for part in reversed(path.split("/")) if part]
    while parts:
        part = parts.pop()
        if part in ("", "."):
            continue
        if part == "..":
            at = os.path.dirname(at).rstrip("/")
            continue
        at = f"{at}/{part}"
        if place := system_place(at):
            return place
        try:
            target = os.readlink(at)
        except OSError:
            continue
        if _is_kernels(os.lstat(at).st_dev) or (links := links + 1) > _LINKS:
            return "a file system of the kernel"
        parts += reversed(target.split("/"))
        at = "" if target.startswith("/") else os.path.dirname(at).rstrip("/")
    return ""


def folder_place(path: str, status: os.stat_result | None = None) -> str:
    """The system's place in which a folder, existing or not, really is; empty if it is not in one."""
    if place := system_place(path):
        return place
    if status is None:
        path = os.path.realpath(path)
        above = path
        while not os.path.lexists(above) and above != "/":
            above = os.path.dirname(above)
        status = os.stat(above)
    elif os.path.islink(path):
        path = os.path.realpath(path)
    return system_place(path) or ("a file system of the kernel" if _is_kernels(status.st_dev) else "")
