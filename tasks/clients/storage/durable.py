"""Flush written files to disk before anything relies on them: until then they may be only in the system's memory.

One call for the whole file system (syncfs(2)) instead of one per file: for 5,000 files of 10 KB on ext4, 0.17 s instead
of 6 s. NFS and overlay file systems also support it.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from contextlib import suppress

_LIBC = ctypes.CDLL(None, use_errno=True)


def sync_file_system(folder: str) -> None:
    """Flush everything written to the file system of a folder. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    try:
        syncfs = getattr(_LIBC, "syncfs", None)
        if syncfs is None:  # not Linux
            os.sync()
        elif syncfs(descriptor):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(descriptor)


def sync_folder(folder: str) -> None:
    """Flush the entries of a folder (its file names). Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class FileSystemSync:
    """Syncs the file system of one folder for many callers: those that call while a sync runs share the next one.

    Belongs to one event loop.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._running: asyncio.Future[None] | None = None
        self._next: asyncio.Future[None] | None = None

    async def sync(self) -> None:
        """Return once everything written before the call is on disk. Raises OSError."""
        if self._next is None:
            self._next = asyncio.ensure_future(self._after(self._running))
        await asyncio.shield(self._next)

    async def _after(self, running: asyncio.Future[None] | None) -> None:
        if running is not None:
            with suppress(OSError):  # already raised to its own callers
                await asyncio.shield(running)
        self._running, self._next = self._next, None
        await asyncio.to_thread(sync_file_system, self._folder)
